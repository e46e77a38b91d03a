//go:build e2e && linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// loopback returns the Service's node port on loopback.
func (m *manifest) loopback() []frontend {
	var out []frontend
	for _, a := range []string{"127.0.0.1", "::1"} {
		out = append(out, frontend{kind: nodePort, addr: netip.AddrPortFrom(netip.MustParseAddr(a), uint16(m.nodePort()))})
	}
	return out
}

// TestLoopbackNodePort (P33): programs of the node reach its node ports on loopback, whatever the Service's policies,
// and nothing else becomes reachable there.
func TestLoopbackNodePort(t *testing.T) {
	c := shared(t)
	m := newService("loopback", 72, c.A2, c.B2)
	c.apply(t, m)
	node, protocols := client{c.N1, c.N1}, []testbed.Proto{testbed.TCP, testbed.UDP}
	each := func(name string, check func(t *testing.T, p testbed.Proto, f frontend)) {
		for _, p := range protocols {
			for _, f := range m.loopback() {
				t.Run(fmt.Sprintf("%s %s %s", name, p, f), func(t *testing.T) { check(t, p, f) })
			}
		}
	}
	each("cluster", func(t *testing.T, p testbed.Proto, f frontend) {
		c.askEvenly(t, node, p, f, "a2", "b2")
	})
	each("pod", func(t *testing.T, p testbed.Proto, f frontend) {
		if _, err := c.A1.Ask(t.Context(), p, f.addr); !errors.Is(err, testbed.ErrRefused) {
			t.Errorf("a pod's own loopback: %v, want refused", err)
		}
	})
	each("bound to loopback", func(t *testing.T, p testbed.Proto, f frontend) {
		_, err := c.N1.Ask(t.Context(), p, f.addr, testbed.From(netip.AddrPortFrom(f.addr.Addr(), 0)))
		if !errors.Is(err, testbed.ErrRefused) {
			t.Errorf("a socket that is bound to loopback: %v, want refused", err)
		}
	})
	m.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	c.apply(t, m)
	each("affinity", func(t *testing.T, p testbed.Proto, f frontend) {
		tally := c.N1.AskMany(t.Context(), 10, p, f.addr)
		if err := tally.Err(); err != nil || len(tally.Pods) != 1 {
			t.Errorf("answers by %v (%v), want one pod", tally.Pods, err)
		}
	})
	m.Spec.SessionAffinity = corev1.ServiceAffinityNone
	m.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	c.apply(t, m)
	each("local", func(t *testing.T, p testbed.Proto, f frontend) {
		c.askEvenly(t, node, p, f, "a2", "b2") // the node is not outside
	})
	c.apply(t, m.withPods(c.B2))
	each("local elsewhere", func(t *testing.T, p testbed.Proto, f frontend) {
		c.askEvenly(t, node, p, f, "b2")
	})
	c.checkNoLocalnet(t, m)
	c.drop(t, m.Name)
	c.settle(t)
	each("deleted", func(t *testing.T, p testbed.Proto, f frontend) {
		if _, err := c.N1.Ask(t.Context(), p, f.addr); !errors.Is(err, testbed.ErrRefused) {
			t.Errorf("after the Service was deleted: %v, want refused", err)
		}
	})
}

// checkNoLocalnet: packets that come from outside for a loopback address are dropped, those for the node port too.
func (c *cluster) checkNoLocalnet(t *testing.T, m *manifest) {
	t.Helper()
	if got := strings.TrimSpace(c.nodes[0].run(t, "sysctl", "-n", "net.ipv4.conf.all.route_localnet", "net.ipv4.conf.eth0.route_localnet")); got != "0\n0" {
		t.Errorf("route_localnet is %q on all and eth0, want 0", got)
	}
	for _, p := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		if _, err := c.N1.Serve(t.Context(), p, 2222); err != nil {
			t.Fatal(err)
		}
	}
	evil := misrouting(t, c)
	to127 := func(pkt testbed.Packet) bool { return pkt.Dst.Addr() == netip.MustParseAddr("127.0.0.1") }
	arrived, err := c.N1.Sniff(t.Context(), "eth0", to127)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []uint16{uint16(m.nodePort()), 2222} {
		for _, p := range []testbed.Proto{testbed.TCP, testbed.UDP} {
			at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
			if a, err := evil.Ask(t.Context(), p, at, testbed.Timeout(dropTimeout(false))); !errors.Is(err, testbed.ErrTimeout) {
				t.Errorf("from outside to %s %s of n1: %+v, %v; want no answer", p, at, a, err)
			}
		}
	}
	if n, err := arrived.Count(); n < 4 || err != nil {
		t.Errorf("%d packets for 127.0.0.1 arrived at n1 (%v), want at least 4", n, err)
	}
}

// misrouting returns an outside host that sends packets for 127.0.0.1 to the first node. It stays in the bed, for the next
// round of the test.
func misrouting(t *testing.T, c *cluster) *testbed.Host {
	t.Helper()
	if h := c.Host("evil"); h != nil {
		return h
	}
	h, err := c.AddOutside(t.Context(), "evil")
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.Command(t.Context(), "sh", "-ec", `
		sysctl -qw net.ipv4.conf.all.route_localnet=1
		ip route del table local 127.0.0.1 dev lo
		ip route del table local 127.0.0.0/8 dev lo
		ip route add 127.0.0.1 via "$0"`, c.N1.Addr4.String()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return h
}

// TestLoopbackRestart: a daemon that is killed, and the next one, leave no moment without loopback, and none in which
// the pods that it leads to are old.
func TestLoopbackRestart(t *testing.T) {
	c := shared(t)
	m := newService("loopback-restart", 73, c.A2, c.B2)
	c.apply(t, m)
	c.rest(t)
	ctx, stop := context.WithCancel(t.Context())
	var answers atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, f := range m.loopback() {
				if _, err := c.N1.Ask(ctx, testbed.TCP, f.addr); err != nil && ctx.Err() == nil {
					t.Errorf("after %d answers: %v", answers.Load(), err)
				}
				answers.Add(1)
			}
		}
	}()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		c.nodes[0].stop(t, sig)
		c.restart(t, c.nodes[0])
		if n := c.nodes[0].metric(t, "kubehop_kernel_operations_total"); n != 0 {
			t.Errorf("%v kernel operations after the restart, want none", n)
		}
	}
	stop()
	<-done
	if answers.Load() == 0 {
		t.Error("no request was made meanwhile")
	}
}

// TestLoopbackOnly: with --nodeport-addresses=localhost node ports answer on loopback and nowhere else, and cleanup
// leaves nothing of it.
func TestLoopbackOnly(t *testing.T) {
	c := fresh(t, options{nodes: oneNode, args: []string{"--nodeport-addresses=localhost"}})
	m := newService("loopback-only", 74, c.A2)
	m.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	c.apply(t, m)
	for _, p := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		for i, f := range m.loopback() {
			c.askEvenly(t, client{c.N1, c.N1}, p, f, "a2")
			family := 4 + 2*i
			at := netip.AddrPortFrom(c.N1.Addr(f.addr.Addr()), f.addr.Port())
			for _, h := range []*testbed.Host{c.N1, c.A1, c.Out} {
				if _, err := h.Ask(t.Context(), p, at); !errors.Is(err, testbed.ErrRefused) {
					t.Errorf("%s %s to %s: %v, want refused", p, h, at, err)
				}
			}
			standIn := netip.AddrPortFrom(netip.MustParseAddr(map[int]string{4: "192.0.0.8", 6: "100::8"}[family]), f.addr.Port())
			if _, err := c.A1.Ask(t.Context(), p, standIn, testbed.Timeout(dropTimeout(false))); !errors.Is(err, testbed.ErrTimeout) {
				t.Errorf("%s a pod to the stand-in %s: %v, want it dropped", p, standIn, err)
			}
		}
	}
	if !pinned(t, c.N1) {
		t.Error("nothing is pinned for n1")
	}
	c.nodes[0].stop(t, syscall.SIGTERM)
	c.nodes[0].run(t, os.Getenv("KUBE_HOP"), "cleanup")
	if pinned(t, c.N1) {
		t.Error("something is pinned for n1 after cleanup")
	}
	for _, f := range m.loopback() {
		if _, err := c.N1.Ask(t.Context(), testbed.TCP, f.addr); !errors.Is(err, testbed.ErrRefused) {
			t.Errorf("after cleanup %s: %v, want refused", f, err)
		}
	}
}

// pinned reports whether a daemon has pinned its socket hooks for a node's namespace, in the folder of the namespace's
// cookie. The file system is one for all namespaces, those of other tests too.
func pinned(t *testing.T, n *testbed.Host) bool {
	t.Helper()
	var cookie uint64
	if err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat(fmt.Sprintf("/sys/fs/bpf/kube-hop/%d", cookie))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
