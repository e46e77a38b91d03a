//go:build e2e && linux

package suite

import (
	"os"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestBridgeFilter is P40: two pods on one bridge reach each other through a Service, or the daemon says what is
// missing and how to put it right.
func TestBridgeFilter(t *testing.T) {
	set := func(h *testbed.Host, value string) error {
		return h.Do(func() error {
			for _, name := range []string{"iptables", "ip6tables"} {
				if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte(value), 0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	c := fresh(t, options{
		nodes: oneNode, args: []string{"--ipvs-sync-period", quickPeriod.String()},
		before: func(n *node) error { return set(n.Host, "0") },
	})
	n1 := c.nodes[0]
	log, err := os.ReadFile(n1.daemon.Log())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		awaitLog(t, func() string { return string(log) }, "Kernel setting is wrong", "sysctl -w net.bridge.bridge-nf-call-"+name+"=1")
	}

	m := newService("bridge", 5, c.A1)
	c.apply(t, m)
	if err := set(c.N1, "1"); err != nil {
		t.Fatal(err)
	}
	for _, family := range []int{4, 6} {
		a, err := c.A2.Ask(t.Context(), testbed.TCP, m.at(family))
		if err != nil || a.Pod != "a1" || a.Peer.Addr() != c.A2.Addr(m.at(family).Addr()) {
			t.Errorf("%+v, %v: want a1, which sees a2's own address", a, err)
		}
	}
}
