//go:build e2e && linux

package parity

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestP05KeepClientAddress(t *testing.T) {
	r := begin(t, "P05", "eTP Local keeps the client address by TCP, UDP and SCTP, and does not touch the ClusterIP")
	s := r.service("p05", etpLocal, over(protos...))
	s.endpoints(pods(r.A1, r.B1)...)
	r.settle()
	r.expectLocalView(s)
	s.update(func(svc *corev1.Service) { svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster })
	r.settle()
	for _, f := range s.externals(r.N1) {
		r.expect(r.Out, f, answeredBy(r.A1, r.B1).seeing(r.N1))
	}
	s.update(etpLocal)
	r.settle()
	r.expectLocalView(s)
}

// expectLocalView: outside clients reach the local pod only, under their own address; pods reach all at the ClusterIP.
func (r *row) expectLocalView(s *service) {
	r.Helper()
	for _, proto := range protos {
		p := s.overProto(proto)
		for _, f := range []frontend{p.V(), p.E(), p.N(r.N1)} {
			r.expect(r.Out, f, answeredBy(r.A1).seeing(r.Out))
		}
		r.expect(r.A2, p.C(), answeredBy(r.A1, r.B1).seeing(r.A2))
	}
}
