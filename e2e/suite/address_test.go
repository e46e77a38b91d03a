//go:build e2e && linux

package suite

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestNodeAddressChange: node ports follow the node's addresses.
func TestNodeAddressChange(t *testing.T) {
	c := shared(t)
	m := newService("node-address", 7, c.A1)
	c.apply(t, m)
	for _, prefix := range []string{"192.168.50.77/24", "fd50::77/64"} {
		t.Run(prefix, func(t *testing.T) {
			at := netip.AddrPortFrom(netip.MustParsePrefix(prefix).Addr(), uint16(m.nodePort()))
			change := func(do func(netlink.Link, *netlink.Addr) error) {
				t.Helper()
				err := c.N1.Do(func() error {
					link, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					addr, err := netlink.ParseAddr(prefix)
					if err != nil {
						return err
					}
					return do(link, addr)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			change(netlink.AddrAdd)
			eventually(t, 10*time.Second, func() error { return c.nodes[0].want(testbed.TCP, at, true) })
			c.settle(t) // a virtual server comes before its endpoints
			if a, err := c.Out.Ask(t.Context(), testbed.TCP, at); err != nil || a.Pod != "a1" {
				t.Errorf("answered by %q, %v; want a1", a.Pod, err)
			}
			change(netlink.AddrDel)
			eventually(t, 10*time.Second, func() error { return c.nodes[0].want(testbed.TCP, at, false) })
		})
	}
}
