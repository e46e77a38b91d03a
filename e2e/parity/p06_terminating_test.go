//go:build e2e && linux

package parity

import (
	"net/http"
	"testing"
)

func TestP06Terminating(t *testing.T) {
	r := begin(t, "P06", "Terminating endpoints are the last resort, then really used, for each view apart")
	s := r.service("p06", etpLocal)
	s.endpoints(terminating(r.A1), ready(r.B1))
	r.settle()
	for _, f := range s.externals(r.N1) {
		r.expect(r.Out, f, answeredBy(r.A1).seeing(r.Out))
	}
	r.expect(r.A2, s.C(), answeredBy(r.B1))
	r.expectHealth(r.Out, r.N1, s, http.StatusServiceUnavailable)

	s.endpoints(terminating(r.A1), unready(r.B1))
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1))
	r.expect(r.Out, s.V(), answeredBy(r.A1))

	s.endpoints(endpoint{host: r.A1, terminating: true}, unready(r.B1)) // it does not serve any more
	r.settle()
	r.expect(r.A2, s.C(), refused())
	r.expect(r.Out, s.V(), refused())
}
