//go:build e2e && linux

package parity

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP33LoopbackNodePort: node ports answer on loopback if --nodeport-addresses selects it, and are refused at once if
// not; route_localnet, which lets neighbours reach what listens on loopback, stays off.
func TestP33LoopbackNodePort(t *testing.T) {
	r := begin(t, "P33", "Node ports answer on loopback, and route_localnet stays off")
	s := r.service("p33", over(testbed.TCP, testbed.UDP))
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	loopback := func(proto testbed.Proto) frontend {
		p := s.overProto(proto)
		return p.front("loopback:N", p.port.NodePort, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	}
	each := func(want outcome) {
		for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
			r.expect(r.N1, loopback(proto), want)
		}
	}
	each(answeredBy(r.A1, r.B1).seeing(r.N1))
	out, err := r.N1.Command(r.Context(), "sysctl", "-n", "net.ipv4.conf.all.route_localnet").CombinedOutput()
	r.must(err)
	if got := strings.TrimSpace(string(out)); got != "0" {
		r.Errorf("net.ipv4.conf.all.route_localnet is %s, want 0", got)
	}
	s.update(func(s *corev1.Service) { etpLocal(s) })
	s.endpoints(ready(r.B1))
	r.settle()
	each(answeredBy(r.B1).seeing(r.N1)) // the node is not outside: policy Local does not bind it

	r.restart(r.N1, "--nodeport-addresses=primary")
	each(refused())
	r.expect(r.N1, s.N(r.N1), answeredBy(r.B1))
}
