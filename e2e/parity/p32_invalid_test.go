//go:build e2e && linux

package parity

import (
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP32Invalid: a segment far outside of the window, which connection tracking does not translate, is answered by a
// reset from nobody, and the connection goes on.
func TestP32Invalid(t *testing.T) {
	r := begin(t, "P32", "A segment outside of the window ends no masqueraded connection")
	s := r.service("p32")
	s.endpoints(ready(r.B1))
	r.settle()
	for _, f := range s.externals(r.N1) {
		held := r.hold(r.Out, f)
		resets, err := r.B1.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool { return p.Reset })
		r.must(err)
		for i, stream := range held {
			server := netip.AddrPortFrom(r.B1.Addr(f.at[i].Addr()), podPort)
			r.must(r.B1.Inject(server, stream.Answer.Peer))
			r.must(r.Out.Inject(stream.Local(), f.at[i]))
		}
		for range 3 {
			r.goOn("a connection through "+f.name, held)
		}
		if n, err := resets.Count(); n != 0 || err != nil {
			r.Errorf("%s: %d resets, %v", f.name, n, err)
		}
	}
}
