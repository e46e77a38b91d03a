//go:build e2e && linux

package suite

import (
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestInvalidSegments: a segment far outside of the window, which connection tracking calls invalid and does not
// translate, is answered by a reset from nobody, in either direction, and the connection goes on (P32).
func TestInvalidSegments(t *testing.T) {
	c := shared(t)
	m := newService("invalid", 171, c.B1)
	c.apply(t, m)
	for _, f := range m.frontends(c.N1) {
		if f.kind == clusterIP {
			continue
		}
		t.Run(f.String(), func(t *testing.T) {
			s, err := c.Out.Dial(t.Context(), testbed.TCP, f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			server := netip.AddrPortFrom(c.B1.Addr(f.addr.Addr()), podPort)
			resets, err := c.B1.Sniff(t.Context(), "eth0", func(p testbed.Packet) bool { return p.Reset })
			if err != nil {
				t.Fatal(err)
			}
			if err := c.B1.Inject(server, s.Answer.Peer); err != nil {
				t.Fatal(err)
			}
			if err := c.Out.Inject(s.Local(), f.addr); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := s.Ping(); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := resets.Count(); n != 0 || err != nil {
				t.Errorf("%d resets, %v, want none", n, err)
			}
		})
	}
}
