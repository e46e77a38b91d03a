//go:build e2e && linux

package parity

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP51MasqueradeUnderLoad: no connection loses its first packet to another one that got the same source port.
func TestP51MasqueradeUnderLoad(t *testing.T) {
	n := 5000
	if testing.Short() {
		n = 1000
	}
	r := begin(t, "P51", fmt.Sprintf("%d connections at a time to a masqueraded node port, over a plain link and by VXLAN: "+
		"no SYN is sent twice, none is lost to a clash of source ports", n))
	s := r.service("p51")
	s.endpoints(ready(r.B1))
	r.settle()
	r.allowFiles(uint64(3 * n)) // both ends of each connection are this process's
	r.flood(n, "a plain link", "eth0", s.N(r.N1))
	r.overVXLAN()
	r.flood(n, "VXLAN", vxlan, s.N(r.N1))
	r.expect(r.A2, s.C(), answeredBy(r.B1).seeing(r.A2)) // what needs no port takes none
}

// allowFiles lets the test have so many files open.
func (r *row) allowFiles(n uint64) {
	r.Helper()
	var have unix.Rlimit
	r.must(unix.Getrlimit(unix.RLIMIT_NOFILE, &have))
	r.must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: max(have.Cur, n), Max: max(have.Max, n)}))
}

// flood opens n connections to each address, and closes them when all are open.
func (r *row) flood(n int, over, link string, f frontend) {
	r.Helper()
	for _, dst := range f.at {
		sent, left := r.opening(r.Out, "eth0", dst), r.opening(r.N1, link, netip.AddrPortFrom(r.B1.Addr(dst.Addr()), podPort))
		before := r.conntrackLosses()
		slowest := r.openAll(r.Out, dst, n)
		if after := r.conntrackLosses(); after != before {
			r.Errorf("conntrack on n1 lost connections: %s before, %s after", before, after)
		}
		r.wantOnce(sent, n, fmt.Sprintf("out to %s, over %s", dst, over))
		r.wantOnce(left, n, fmt.Sprintf("n1 for %s, over %s", dst, over))
		r.Logf("%d connections to %s over %s: the slowest took %.0f ms", n, dst, over, float64(slowest.Milliseconds()))
	}
}

// opening counts, by source, the segments that ask the destination for a connection and leave a host by the interface.
func (r *row) opening(h *testbed.Host, link string, dst netip.AddrPort) *openings {
	r.Helper()
	o := &openings{sources: map[netip.AddrPort]int{}}
	var err error
	o.sniffer, err = h.Sniff(r.Context(), link, func(p testbed.Packet) bool {
		ours := p.Outgoing && p.Opens && p.Dst == dst
		if ours {
			o.sources[p.Src]++
		}
		return ours
	})
	r.must(err)
	return o
}

type openings struct {
	sniffer *testbed.Sniffer
	sources map[netip.AddrPort]int
}

// wantOnce reports if fewer than n sources asked for a connection, or one more than once.
func (r *row) wantOnce(o *openings, n int, what string) {
	r.Helper()
	total, err := o.sniffer.Count()
	r.must(err)
	r.must(o.sniffer.Close())
	if len(o.sources) != n || total != n {
		r.Errorf("%s: %d connections are asked for by %d segments from %d ports", what, n, total, len(o.sources))
	}
}

// openAll opens n connections, 100 side by side, each kept until all are open, and returns how long the slowest took.
func (r *row) openAll(client *testbed.Host, dst netip.AddrPort, n int) (slowest time.Duration) {
	r.Helper()
	const side = 100
	var wg, opened sync.WaitGroup
	var mu sync.Mutex
	var first error
	opened.Add(side)
	for range side {
		wg.Go(func() {
			var streams []*testbed.Stream
			for range n / side {
				begin := time.Now()
				s, err := client.Dial(r.Context(), testbed.TCP, dst, testbed.Timeout(6*patience))
				mu.Lock()
				if err != nil && first == nil {
					first = err
				}
				slowest = max(slowest, time.Since(begin))
				mu.Unlock()
				if err == nil {
					streams = append(streams, s)
				}
			}
			opened.Done()
			opened.Wait()
			for _, s := range streams {
				_ = s.Close()
			}
		})
	}
	wg.Wait()
	if first != nil {
		r.Errorf("a connection to %s: %s", dst, word(first))
	}
	return slowest
}

// vxlan is the device over which two nodes reach each other's pods.
const vxlan = "vx51"

// overVXLAN lets n1 and n2 reach each other's pods over VXLAN until the end of the row, as overlay networks do.
func (r *row) overVXLAN() {
	r.Helper()
	ends := map[*testbed.Host]*testbed.Host{r.N1: r.N2, r.N2: r.N1}
	at := map[*testbed.Host]string{r.N1: "1", r.N2: "2"}
	run := func(h *testbed.Host, script string) {
		r.Helper()
		r.run(h, "bash", "-ec", script)
	}
	for n, peer := range ends {
		run(n, fmt.Sprintf(`ip link add %[1]s type vxlan id 51 local %[2]s remote %[3]s dstport 4789 dev eth0
ip addr add 172.31.51.%[4]s/24 dev %[1]s
ip addr add fd51::%[4]s/64 dev %[1]s nodad
ip link set %[1]s up`, vxlan, n.Addr4, peer.Addr4, at[n]))
		r.Cleanup(func() { run(n, "ip link del "+vxlan) })
	}
	for n, peer := range ends {
		for _, route := range []struct{ family, prefix, via string }{
			{"-4", netip.PrefixFrom(peer.Gateway4, 24).Masked().String(), "172.31.51." + at[peer]},
			{"-6", netip.PrefixFrom(peer.Gateway6, 64).Masked().String(), "fd51::" + at[peer]},
		} {
			before := fmt.Sprintf("ip %s route show %s", route.family, route.prefix)
			out, err := n.Command(r.Context(), "bash", "-ec", before).Output()
			r.must(err)
			run(n, fmt.Sprintf("ip %s route replace %s via %s dev %s", route.family, route.prefix, route.via, vxlan))
			r.Cleanup(func() { run(n, fmt.Sprintf("ip %s route replace %s", route.family, out)) })
		}
	}
}

// lossCounters are those that tell of a clash, as conntrack -S prints them for each processor.
var lossCounters = regexp.MustCompile(`\b(insert_failed|drop|early_drop)=(\d+)`)

// conntrackLosses returns the sums of N1's counters of lost connections.
func (r *row) conntrackLosses() string {
	r.Helper()
	out, err := r.N1.Command(r.Context(), "conntrack", "-S").CombinedOutput()
	if err != nil {
		r.Fatalf("conntrack -S: %v: %s", err, out)
	}
	sums := map[string]int{}
	for _, m := range lossCounters.FindAllStringSubmatch(string(out), -1) {
		n, _ := strconv.Atoi(m[2]) // digits
		sums[m[1]] += n
	}
	return fmt.Sprint(sums)
}
