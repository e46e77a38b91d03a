//go:build e2e && linux

package parity

import (
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP25Restart: nobody notices that the proxy is killed and started again, and it catches up with what changed.
func TestP25Restart(t *testing.T) {
	r := begin(t, "P25", "A crash and restart is invisible, and what changed meanwhile is caught up")
	s := r.service("p25", over(testbed.TCP, testbed.UDP))
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	tcp, udp := s.overProto(testbed.TCP), s.overProto(testbed.UDP)
	held := append(r.holdTo(r.A2, tcp.C(), r.B1), r.holdTo(r.Out, tcp.V(), r.B1)...)
	flows := append(r.hold(r.A2, udp.C()), r.hold(r.Out, udp.N(r.N1))...)
	r.must(r.stopDaemon(r.Context(), r.N1))
	r.goOn("a connection while no proxy runs", append(held, flows...))
	r.expect(r.A2, tcp.C(), answeredBy(r.A1, r.B1))
	s.endpoints(ready(r.A1), terminating(r.B1), ready(r.B2))
	r.must(r.startAgain(r.Context(), r.N1, nil))
	r.goOn("a connection after the restart", held)
	r.expect(r.A2, tcp.C(), answeredBy(r.A1, r.B2))
	r.expect(r.Out, tcp.V(), answeredBy(r.A1, r.B2))
	r.must(r.startAgain(r.Context(), r.N1, nil))
	r.goOn("a connection to an endpoint that drains over two restarts", held)
}
