//go:build e2e && linux

package parity

import "testing"

// TestP04InternalLocal: internalTrafficPolicy Local without a local endpoint drops, whether or not the Service has
// external frontends, and does not influence those.
func TestP04InternalLocal(t *testing.T) {
	r := begin(t, "P04", "iTP Local without a local endpoint: the ClusterIP drops, external frontends answer")
	whole := r.service("p04-whole", itpLocal)
	plain := r.service("p04-plain", itpLocal, clusterIPOnly)
	for _, s := range []*service{whole, plain} {
		s.endpoints(ready(r.B1))
	}
	r.settle()
	for _, s := range []*service{whole, plain} {
		r.expectNothingSent(r.A1, s.C())
	}
	for _, f := range whole.externals(r.N1) {
		r.expect(r.Out, f, answeredBy(r.B1))
	}
}
