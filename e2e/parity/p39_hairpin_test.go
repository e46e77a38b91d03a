//go:build e2e && linux

package parity

import "testing"

// TestP39Hairpin: a pod that is the only endpoint reaches itself through every frontend, and sees another peer than
// itself; no other pod is masqueraded for that.
func TestP39Hairpin(t *testing.T) {
	r := begin(t, "P39", "A pod behind its own Service (hairpin)")
	cluster := r.service("p39-cluster", over(protos...))
	local := r.service("p39-local", over(protos...), etpLocal, itpLocal)
	for _, s := range []*service{cluster, local} {
		s.endpoints(ready(r.A1))
	}
	r.settle()
	for _, proto := range protos {
		for _, s := range []*service{cluster, local} {
			p := s.overProto(proto)
			for _, f := range []frontend{p.C(), p.V(), p.E(), p.N(r.N1)} {
				r.expect(r.A1, f, answeredBy(r.A1).seeing(r.N1))
			}
			r.expect(r.A2, p.C(), answeredBy(r.A1).seeing(r.A2))
		}
		p := local.overProto(proto)
		for _, f := range []frontend{p.V(), p.E(), p.N(r.N1)} {
			r.expect(r.A2, f, answeredBy(r.A1).seeing(r.A2))
		}
	}
}
