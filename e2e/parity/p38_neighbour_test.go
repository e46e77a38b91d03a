//go:build e2e && linux

package parity

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP38NeighbourAddress: an external IP that is another node's address takes only the Service's port from it; the same
// for an address that moves between nodes, as that of the API server does.
func TestP38NeighbourAddress(t *testing.T) {
	r := begin(t, "P38", "An external or load balancer IP that is another node's address, or a floating one that it holds: "+
		"only the Service's port is served there; its other listeners and ping stay its own")
	floating := addrs("192.168.50.240", "fd50::240")
	for _, a := range floating {
		holds := fmt.Sprintf("%s/%d", a, a.BitLen())
		r.run(r.N2, "ip", "addr", "add", holds, "dev", "eth0")
		r.Cleanup(func() { r.run(r.N2, "ip", "addr", "del", holds, "dev", "eth0") })
	}
	// What a node serves beside Services, such as ssh and the API server.
	for _, port := range []uint16{22, 6443} {
		r.serve(r.N2, testbed.TCP, port)
	}
	r.serve(r.N2, testbed.UDP, 6443)
	for name, owned := range map[string][]netip.Addr{
		"n2's address": {r.N2.Addr4, r.N2.Addr6}, "floating address": floating,
	} {
		r.ownedByNeighbour(name, owned)
	}
}

// ownedByNeighbour: n2 owns the addresses, which are a Service's.
func (r *row) ownedByNeighbour(name string, owned []netip.Addr) {
	r.Helper()
	s := r.service(fmt.Sprintf("p38-%d", r.services), func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = nil
		for _, a := range owned {
			svc.Spec.ExternalIPs = append(svc.Spec.ExternalIPs, a.String())
		}
	})
	s.endpoints(ready(r.A1))
	s.ingress(owned...)
	r.settle()
	for _, client := range []*testbed.Host{r.N1, r.A1, r.A2, r.Out} {
		r.expect(client, at(name, testbed.TCP, 22, owned...), answeredBy(r.N2))
		r.expect(client, at(name, testbed.TCP, 6443, owned...), answeredBy(r.N2))
		r.expect(client, at(name, testbed.UDP, 6443, owned...), answeredBy(r.N2))
		for _, a := range owned {
			if how := ping(client, a); how != "answered" {
				r.Errorf("ping from %s to %s (%s): %s", client, name, a, how)
			}
		}
		r.expect(client, at("E, "+name, testbed.TCP, 80, owned...), answeredBy(r.A1))
	}
	r.expect(r.Out, s.N(r.N2), answeredBy(r.A1))
	s.delete()
	r.settle()
}
