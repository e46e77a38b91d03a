//go:build e2e && linux

package parity

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// frontend is one kind of address of a Service port, in each family that the Service has.
type frontend struct {
	name  string // such as V
	proto testbed.Proto
	at    []netip.AddrPort
}

// C is the ClusterIP of the Service's first port.
func (s *service) C() frontend { return s.overProto(s.first()).C() }

// E is the external IP of the Service's first port.
func (s *service) E() frontend { return s.overProto(s.first()).E() }

// V is the load balancer IP of the Service's first port.
func (s *service) V() frontend { return s.overProto(s.first()).V() }

// N is the node port of the Service's first port, at the node.
func (s *service) N(node *testbed.Host) frontend { return s.overProto(s.first()).N(node) }

// externals returns V, E and N.
func (s *service) externals(node *testbed.Host) []frontend {
	return []frontend{s.V(), s.E(), s.N(node)}
}

func (s *service) first() testbed.Proto { return testbed.Proto(s.Spec.Ports[0].Protocol) }

// servicePort is one port of a Service.
type servicePort struct {
	*service
	port corev1.ServicePort
}

// overProto returns the first port of the protocol, whose C, E, V and N are the frontends.
func (s *service) overProto(proto testbed.Proto) servicePort {
	s.row.Helper()
	for _, p := range s.Spec.Ports {
		if testbed.Proto(p.Protocol) == proto {
			return servicePort{s, p}
		}
	}
	s.row.Fatalf("Service %s has no %s port", s.Name, proto)
	return servicePort{}
}

func (p servicePort) C() frontend {
	var ips []netip.Addr
	for _, text := range p.Spec.ClusterIPs {
		ips = append(ips, netip.MustParseAddr(text))
	}
	return p.front("C", p.port.Port, ips...)
}

func (p servicePort) E() frontend { return p.front("E", p.port.Port, p.external...) }

func (p servicePort) V() frontend { return p.front("V", p.port.Port, p.balancer...) }

func (p servicePort) N(node *testbed.Host) frontend {
	p.row.Helper()
	if p.port.NodePort == 0 {
		p.row.Fatalf("Service %s has no node port", p.Name)
	}
	return p.front(node.Name+":N", p.port.NodePort, node.Addr4, node.Addr6)
}

// front returns the frontend at those of the addresses whose family the Service has.
func (p servicePort) front(name string, port int32, at ...netip.Addr) frontend {
	f := frontend{name: name, proto: testbed.Proto(p.port.Protocol)}
	for _, family := range p.Spec.IPFamilies {
		for _, a := range at {
			if a.Is4() == (family == corev1.IPv4Protocol) {
				f.at = append(f.at, netip.AddrPortFrom(a, uint16(port)))
			}
		}
	}
	return f
}

// onPort returns the same addresses with another port.
func (f frontend) onPort(port uint16) frontend {
	out := frontend{name: f.name, proto: f.proto}
	for _, a := range f.at {
		out.at = append(out.at, netip.AddrPortFrom(a.Addr(), port))
	}
	return out
}

// by returns the frontend's addresses for another protocol.
func (f frontend) by(proto testbed.Proto) frontend { f.proto = proto; return f }
