//go:build e2e && linux

package parity

import (
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP02InsideView: pods reach every endpoint of a Service with policy Local at its external addresses, while outside
// clients reach the node's own at the same address and port, with their address kept.
func TestP02InsideView(t *testing.T) {
	r := begin(t, "P02", "In-cluster clients of a Local Service do not get the outside view")
	both := r.service("p02-both", etpLocal, over(testbed.TCP, testbed.UDP))
	both.endpoints(pods(r.A2, r.B1)...)
	elsewhere := r.service("p02-elsewhere", etpLocal, over(testbed.TCP, testbed.UDP))
	elsewhere.endpoints(ready(r.B1))
	r.settle()
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		p, q := both.overProto(proto), elsewhere.overProto(proto)
		for _, front := range []func(servicePort) frontend{
			servicePort.V, servicePort.E, func(s servicePort) frontend { return s.N(r.N1) },
		} {
			r.expect(r.A1, front(p), answeredBy(r.A2, r.B1))
			r.expect(r.Out, front(p), answeredBy(r.A2).seeing(r.Out))
			r.expect(r.A1, front(q), answeredBy(r.B1))
			r.expect(r.Out, front(q), dropped())
		}
	}
}

// TestP03NodeView: host processes reach every endpoint of a Service with policy Local at its external addresses, and
// pods see a node address.
func TestP03NodeView(t *testing.T) {
	r := begin(t, "P03", "The node itself reaches the external addresses of a Local Service")
	s := r.service("p03", etpLocal)
	s.endpoints(ready(r.B1))
	r.settle()
	for _, f := range s.externals(r.N1) {
		r.expect(r.N1, f, answeredBy(r.B1).seeing(r.N1))
	}
}
