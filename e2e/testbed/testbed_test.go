//go:build e2e && linux

package testbed_test

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// newBed makes a bed for one test. Only a machine without the means may skip, and a job that has them says so.
func newBed(t *testing.T, opts testbed.Options) *testbed.Bed {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "network namespaces need root")
	}
	bed, err := testbed.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	return bed
}

func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		t.Fatal("REQUIRE_KERNEL=1: ", reason)
	}
	t.Skip(reason)
}

func needProto(t *testing.T, proto testbed.Proto) {
	t.Helper()
	if proto != testbed.SCTP {
		return
	}
	if err := testbed.ProbeSCTP(); err != nil {
		skip(t, "no SCTP: "+err.Error())
	}
}

func serve(t *testing.T, h *testbed.Host, proto testbed.Proto, port uint16) *testbed.Server {
	t.Helper()
	s, err := h.Serve(t.Context(), proto, port)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// both returns the host's two addresses with the port.
func both(h *testbed.Host, port uint16) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(h.Addr4, port), netip.AddrPortFrom(h.Addr6, port)}
}

var protos = []testbed.Proto{testbed.TCP, testbed.UDP, testbed.SCTP}

func TestReach(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	for _, proto := range protos {
		t.Run(string(proto), func(t *testing.T) {
			needProto(t, proto)
			for _, h := range []*testbed.Host{bed.A1, bed.A2, bed.B1, bed.B2, bed.N1} {
				serve(t, h, proto, 8080)
			}
			for _, c := range []struct{ from, to *testbed.Host }{
				{bed.A1, bed.A1},
				{bed.A1, bed.A2},
				{bed.A1, bed.B1},
				{bed.B2, bed.A2},
				{bed.N1, bed.A1},
				{bed.N1, bed.B1},
				{bed.N2, bed.A1},
				{bed.A2, bed.N1},
				{bed.B1, bed.N1},
				{bed.Out, bed.N1},
			} {
				for _, dst := range both(c.to, 8080) {
					checkAnswer(t, c.from, c.to, proto, dst)
				}
			}
		})
	}
}

func checkAnswer(t *testing.T, from, to *testbed.Host, proto testbed.Proto, dst netip.AddrPort) {
	t.Helper()
	got, err := from.Ask(t.Context(), proto, dst)
	if err != nil {
		t.Error(err)
		return
	}
	// From a node to its own pods the source is the node's address on the pod bridge.
	peer := from.Addr(dst.Addr())
	if to.Node == from {
		peer = from.Gateway4
		if dst.Addr().Is6() {
			peer = from.Gateway6
		}
	}
	if got.Pod != to.Name || got.Peer.Addr() != peer || got.Took <= 0 {
		t.Errorf("%s to %s %s: %+v, want pod %s and peer %s", from, proto, dst, got, to, peer)
	}
}

func TestRefused(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	for _, proto := range protos {
		t.Run(string(proto), func(t *testing.T) {
			needProto(t, proto)
			for _, dst := range both(bed.B1, 9) {
				begin := time.Now()
				_, err := bed.A1.Ask(t.Context(), proto, dst)
				if !errors.Is(err, testbed.ErrRefused) || errors.Is(err, testbed.ErrTimeout) {
					t.Errorf("%v, want refused", err)
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("refused after %s, want at once", took)
				}
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	bed := newBed(t, testbed.Options{Timeout: 300 * time.Millisecond})
	for _, proto := range protos {
		t.Run(string(proto), func(t *testing.T) {
			needProto(t, proto)
			// Nobody captures these yet, so the nodes send them to the wire's gateway, where they are lost.
			for _, dst := range []string{"10.96.0.10:80", "[fd96::10]:80"} {
				for _, from := range []*testbed.Host{bed.A1, bed.N1, bed.Out} {
					_, err := from.Ask(t.Context(), proto, netip.MustParseAddrPort(dst))
					if !errors.Is(err, testbed.ErrTimeout) || errors.Is(err, testbed.ErrRefused) {
						t.Errorf("%v, want timeout", err)
					}
				}
			}
		})
	}
}

func TestOutsideHasNoWayToPods(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	s := serve(t, bed.A1, testbed.TCP, 8080)
	for _, dst := range both(bed.A1, 8080) {
		if _, err := bed.Out.Ask(t.Context(), testbed.TCP, dst); !errors.Is(err, testbed.ErrUnreachable) {
			t.Errorf("%v, want unreachable", err)
		}
	}
	if s.Count() != 0 {
		t.Errorf("pod saw %v, want nothing", s.Seen())
	}
}

func TestRouteVia(t *testing.T) {
	bed := newBed(t, testbed.Options{Timeout: 300 * time.Millisecond})
	for _, dst := range []string{"10.96.0.10:80", "[fd96::10]:80"} {
		dst := netip.MustParseAddrPort(dst)
		if err := bed.RouteVia(netip.PrefixFrom(dst.Addr(), dst.Addr().BitLen()), bed.N2); err != nil {
			t.Fatal(err)
		}
		toService := func(p testbed.Packet) bool { return p.Dst == dst && !p.Outgoing }
		sniffers := make([]*testbed.Sniffer, 2)
		for i, n := range bed.Nodes() {
			var err error
			if sniffers[i], err = n.Sniff(t.Context(), "eth0", toService); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := bed.Out.Ask(t.Context(), testbed.UDP, dst); !errors.Is(err, testbed.ErrTimeout) {
			t.Errorf("%v, want timeout", err)
		}
		for i, want := range []int{0, 1} {
			if got, err := sniffers[i].Count(); got != want || err != nil {
				t.Errorf("n%d saw %d packets to %s, %v, want %d", i+1, got, dst, err, want)
			}
		}
	}
}

func TestServerCounts(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		s := serve(t, bed.B1, proto, 8080)
		for _, dst := range both(bed.B1, 8080) {
			tally := bed.A1.AskMany(t.Context(), 5, proto, dst)
			peer := bed.A1.Addr(dst.Addr())
			if tally.Err() != nil || tally.N != 5 || tally.Pods["b1"] != 5 || tally.Peers[peer] != 5 {
				t.Errorf("%s: %+v, want five answers of b1 for a1", proto, tally)
			}
		}
		if s.Count() != 10 || s.Seen()[bed.A1.Addr4] != 5 || s.Seen()[bed.A1.Addr6] != 5 {
			t.Errorf("%s: b1 saw %v, want five of each family", proto, s.Seen())
		}
		if s.Reset(); s.Count() != 0 {
			t.Errorf("%s: %d after Reset", proto, s.Count())
		}
	}
}

func TestHold(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	s := serve(t, bed.B1, testbed.UDP, 8080)
	hold, err := bed.B1.Hold(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"iptables", "ip6tables"} {
		out, err := bed.B1.Command(t.Context(), command, "-t", "mangle", "-A", "INPUT", "-p", "udp", "--dport", "8080", "-j", "NFQUEUE", "--queue-num", "7").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, dst := range both(bed.B1, 8080) {
		if _, err := bed.A1.Ask(t.Context(), testbed.UDP, dst, testbed.Timeout(100*time.Millisecond)); !errors.Is(err, testbed.ErrTimeout) {
			t.Errorf("while it is kept: %v, want timeout", err)
		}
	}
	if n, err := hold.Count(); n != 2 || err != nil || s.Count() != 0 {
		t.Errorf("%d packets are kept, %v, and %d were received; want 2 and none", n, err, s.Count())
	}
	if err := hold.Release(); err != nil {
		t.Fatal(err)
	}
	for _, dst := range both(bed.B1, 8080) {
		if _, err := bed.A1.Ask(t.Context(), testbed.UDP, dst); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	if s.Count() != 4 {
		t.Errorf("%d packets were received in the end, want 4", s.Count())
	}
}

func TestSourcePort(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	for _, proto := range protos {
		t.Run(string(proto), func(t *testing.T) {
			needProto(t, proto)
			serve(t, bed.B1, proto, 8080)
			for _, dst := range both(bed.B1, 8080) {
				for range 3 { // again and again, TIME_WAIT or not
					a, err := bed.A1.Ask(t.Context(), proto, dst, testbed.FromPort(4000))
					if want := netip.AddrPortFrom(bed.A1.Addr(dst.Addr()), 4000); err != nil || a.Peer != want {
						t.Errorf("peer %s, %v, want %s", a.Peer, err, want)
					}
				}
			}
			from := netip.AddrPortFrom(bed.N1.Addr4, 0) // the kernel would take the bridge's
			a, err := bed.N1.Ask(t.Context(), proto, netip.AddrPortFrom(bed.B1.Addr4, 8080), testbed.From(from))
			if err != nil || a.Peer.Addr() != bed.N1.Addr4 {
				t.Errorf("peer %s, %v, want %s", a.Peer, err, bed.N1.Addr4)
			}
		})
	}
}

// A server on a node must answer from the address it was asked at, not from the one that the route suggests.
func TestNodeAnswersFromAskedAddress(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	serve(t, bed.N1, testbed.UDP, 5353)
	for _, addr := range []netip.Addr{bed.N1.Addr4, bed.N1.Addr6} {
		if _, err := bed.A1.Ask(t.Context(), testbed.UDP, netip.AddrPortFrom(addr, 5353)); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []netip.Addr{bed.N1.Gateway4, bed.N1.Gateway6} {
		if _, err := bed.B1.Ask(t.Context(), testbed.UDP, netip.AddrPortFrom(addr, 5353)); err != nil {
			t.Error(err)
		}
	}
}

func TestStream(t *testing.T) {
	bed := newBed(t, testbed.Options{Timeout: 500 * time.Millisecond})
	for _, proto := range protos {
		t.Run(string(proto), func(t *testing.T) {
			needProto(t, proto)
			server := serve(t, bed.B1, proto, 8080)
			s, err := bed.A1.Dial(t.Context(), proto, netip.AddrPortFrom(bed.B1.Addr4, 8080))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for range 3 {
				if err := s.Ping(); err != nil {
					t.Error(err)
				}
			}
			if s.Answer.Peer != s.Local() {
				t.Errorf("peer %s, local %s", s.Answer.Peer, s.Local())
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Ping(); err == nil {
				t.Error("ping after the server has gone succeeds")
			}
		})
	}
}

func TestHTTP(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	serve(t, bed.B1, testbed.TCP, 8080)
	client := bed.A1.HTTP()
	for _, dst := range both(bed.B1, 8080) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+dst.String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		line := regexp.MustCompile(`^b1 \[?` + bed.A1.Addr(dst.Addr()).String() + `\]?:\d+\n$`)
		if err != nil || resp.StatusCode != http.StatusOK || !line.Match(body) {
			t.Errorf("%d %q, %v", resp.StatusCode, body, err)
		}
	}
}

func TestDoLeavesThread(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	want := errors.New("told so")
	var inside string
	if err := bed.A1.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return errors.Join(err, want)
	}); !errors.Is(err, want) {
		t.Errorf("Do returns %v, want the function's error", err)
	}
	after, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil || inside == before || after != before {
		t.Errorf("before %s, inside %s, after %s, %v", before, inside, after, err)
	}
}

func TestAddHosts(t *testing.T) {
	bed := newBed(t, testbed.Options{
		Nodes:   []testbed.NodeSpec{{"n1", nil}, {"n2", nil}, {"n3", []string{"c1"}}},
		Outside: []string{},
	})
	pod, err := bed.AddPod(t.Context(), bed.N1, "a1")
	if err != nil {
		t.Fatal(err)
	}
	out, err := bed.AddOutside(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	c1 := bed.Host("c1")
	serve(t, c1, testbed.TCP, 80)
	serve(t, bed.N2, testbed.TCP, 80)
	checkAnswer(t, pod, c1, testbed.TCP, netip.AddrPortFrom(c1.Addr6, 80))
	checkAnswer(t, out, bed.N2, testbed.TCP, netip.AddrPortFrom(bed.N2.Addr4, 80))
	n4, err := bed.AddNode(t.Context(), testbed.NodeSpec{Name: "n4", Pods: []string{"d1"}})
	if err != nil {
		t.Fatal(err)
	}
	d1 := bed.Host("d1")
	serve(t, d1, testbed.TCP, 80)
	for _, dst := range both(d1, 80) {
		checkAnswer(t, n4, d1, testbed.TCP, dst)
		checkAnswer(t, c1, d1, testbed.TCP, dst)
	}
	if _, err := bed.AddPod(t.Context(), bed.N1, "c1"); err == nil {
		t.Error("two pods of one name")
	}
}

func TestNothingLeft(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	serve(t, bed.A1, testbed.TCP, 80)
	path := filepath.Join("/run/netns", bed.A1.NetnsName)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	p, err := bed.A1.Start(t.Context(), "sleep", []string{"600"}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := bed.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("process outlives the bed")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("namespace outlives the bed: %v", err)
	}
}

// A bed that fails half-way must not leave its first namespaces behind.
func TestFailureLeavesNothing(t *testing.T) {
	newBed(t, testbed.Options{}) // for the skip
	tooLong := "leaky-with-a-name-of-more-than-15-bytes"
	nodes := []testbed.NodeSpec{{"leaky", []string{"leaky-pod"}}, {tooLong, nil}}
	_, err := testbed.New(t.Context(), testbed.Options{Nodes: nodes})
	if err == nil {
		t.Fatal("bed with an impossible name succeeds")
	}
	left, err := filepath.Glob("/run/netns/*-leaky*") // other beds may come and go meanwhile
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
