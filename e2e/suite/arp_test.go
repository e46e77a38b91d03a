//go:build e2e && linux

package suite

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestNeighbours (P53): nodes do not answer ARP and neighbour solicitations for addresses of Services, neither in their
// own network nor elsewhere; a node that really has such an address does, and serves it.
func TestNeighbours(t *testing.T) {
	c := shared(t)
	m := newService("neighbour", 76, c.A2)
	inWire := map[int]netip.AddrPort{4: netip.MustParseAddrPort("192.168.50.200:80"), 6: netip.MustParseAddrPort("[fd50::200]:80")}
	m.Spec.ExternalIPs = []string{inWire[4].Addr().String(), inWire[6].Addr().String()}
	c.apply(t, m)
	n1 := c.nodes[0]
	for family, bits := range map[int]string{4: "/32", 6: "/128"} {
		addr := inWire[family]
		// From a node's pods it works all the same.
		if _, err := c.A1.Ask(t.Context(), testbed.TCP, addr); err != nil {
			t.Error(err)
		}
		if a, err := c.Out.Ask(t.Context(), testbed.TCP, addr, testbed.Timeout(6*time.Second)); err == nil {
			t.Errorf("somebody answered for %s, so that %s was reached", addr, a.Pod)
		}
		n1.runWhile(t, []string{"ip", "addr", "add", addr.Addr().String() + bits, "dev", "eth0"}, []string{"ip", "addr", "del", addr.Addr().String() + bits, "dev", "eth0"})
		eventually(t, startLimit, func() error {
			_, err := c.Out.Ask(t.Context(), testbed.TCP, addr)
			return err
		})
	}
	c.checkNobodyAnswersFor(t, m.addr(clusterIP, 4), m.addr(clusterIP, 6), m.addr(loadBalancer, 4), m.addr(loadBalancer, 6))
	// An address of another interface is an address of the node.
	n1.runWhile(t, []string{"ip", "addr", "add", "192.168.50.201/32", "dev", podBridge}, []string{"ip", "addr", "del", "192.168.50.201/32", "dev", podBridge})
	if _, err := n1.Serve(t.Context(), testbed.UDP, 7004); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Out.Ask(t.Context(), testbed.UDP, netip.MustParseAddrPort("192.168.50.201:7004")); err != nil {
		t.Error(err)
	}
}

// checkNobodyAnswersFor looks for a host on the wire that says it has the addresses, which nodes only made local. It does
// so side by side, since it takes seconds until a host is sure that nobody has an address.
func (c *cluster) checkNobodyAnswersFor(t *testing.T, addrs ...netip.Addr) {
	t.Helper()
	var wg sync.WaitGroup
	for _, a := range addrs {
		c.outDoes(t, "route", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "eth0")
		wg.Go(func() {
			if got, err := c.Out.Ask(t.Context(), testbed.TCP, netip.AddrPortFrom(a, 80), testbed.Timeout(6*time.Second)); err == nil {
				t.Errorf("somebody answered for %s, so that %s was reached", a, got.Pod)
			}
		})
	}
	wg.Wait()
}

// podBridge is the bridge of a node's pods.
const podBridge = "cbr0"
