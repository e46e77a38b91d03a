//go:build e2e && linux

package parity

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP35LocalDestinations: a Service port with the number of another Service's node port is not taken for it, and
// rules of others for local destinations, such as those of host ports, do not get VIP traffic.
func TestP35LocalDestinations(t *testing.T) {
	r := begin(t, "P35", "VIPs are not node ports, and not local destinations for others")
	const number = 31999
	nodePort := r.service("p35-node-port", func(s *corev1.Service) { s.Spec.Ports[0].NodePort = number })
	same := r.service("p35-same-number", etpLocal, func(s *corev1.Service) { s.Spec.Ports[0].Port = number })
	web := r.service("p35-web", clusterIPOnly)
	for _, s := range []*service{nodePort, same, web} {
		s.endpoints(ready(r.A1))
	}
	r.settle()
	r.expect(r.A2, same.C(), answeredBy(r.A1).seeing(r.A2))
	r.expect(r.Out, same.V(), answeredBy(r.A1).seeing(r.Out))
	r.expect(r.Out, nodePort.N(r.N1), answeredBy(r.A1).seeing(r.N1))

	// As the portmap plugin writes them for a pod with hostPort 80, here A2.
	hostPort := []string{"-m", "addrtype", "--dst-type", "LOCAL", "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination"}
	r.rule(r.N1, "iptables", "nat", "-A", "PREROUTING", append(slices.Clip(hostPort), r.A2.Addr4.String()+":8080")...)
	r.rule(r.N1, "ip6tables", "nat", "-A", "PREROUTING", append(slices.Clip(hostPort), "["+r.A2.Addr6.String()+"]:8080")...)
	r.expect(r.A2, web.C(), answeredBy(r.A1))
	r.expect(r.Out, frontend{name: "host port", proto: testbed.TCP, at: nodePort.N(r.N1).onPort(80).at}, answeredBy(r.A2))
}
