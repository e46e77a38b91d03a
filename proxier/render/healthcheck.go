package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/lb"
)

// healthCheck adds the frontends at which the daemon answers for a Service's healthCheckNodePort: on the node addresses
// that answer on node ports, and on the LoadBalancer IPs, where load balancers that do not translate addresses probe.
func (r *serviceRenderer) healthCheck(family lb.Family) {
	if r.service.HealthCheckNodePort == 0 {
		return
	}
	for _, a := range slices.Concat(r.facts.selected(family), ofFamily(r.service.LoadBalancerIPs, family)) {
		r.add(a, lb.TCP, r.service.HealthCheckNodePort, Frontend{Kind: HealthCheck})
	}
}

// HealthChecks returns what the daemon is to answer at a Service's healthCheckNodePort: one check for each family that
// the Service has a ClusterIP in, none without such a port.
func HealthChecks(s lb.Service, slicesOf []lb.EndpointSlice, facts Facts, cfg Config) []lb.HealthCheck {
	if s.HealthCheckNodePort == 0 {
		return nil
	}
	var out []lb.HealthCheck
	for _, family := range []lb.Family{lb.IPv4, lb.IPv6} {
		if _, ok := s.ClusterIP(family); !ok || !cfg.serves(family) {
			continue
		}
		c := lb.HealthCheck{Service: s.Name, Family: family, Port: s.HealthCheckNodePort, Local: countLocal(s, slicesOf, family, facts.Node)}
		if !facts.allNodePorts(family) {
			c.Addrs = append([]netip.Addr{}, facts.selected(family)...)
			for _, a := range ofFamily(s.LoadBalancerIPs, family) {
				if !slices.Contains(c.Addrs, a) {
					c.Addrs = append(c.Addrs, a)
				}
			}
			slices.SortFunc(c.Addrs, netip.Addr.Compare)
		}
		out = append(out, c)
	}
	return out
}

// countLocal counts the ready endpoints of a Service on the node, by address and over all ports. Endpoints that serve
// while they terminate do not count, so that load balancers turn away before they are gone.
func countLocal(s lb.Service, slicesOf []lb.EndpointSlice, family lb.Family, node lb.Node) int {
	seen := map[netip.Addr]bool{}
	for _, port := range s.Ports {
		for _, e := range endpointsOf(slicesOf, family, port) {
			if e.Ready && node.Name != "" && e.NodeName == node.Name {
				seen[e.Addr] = true
			}
		}
	}
	return len(seen)
}

// selected returns the node's addresses of a family that answer on node ports, without stand-ins for others.
func (f Facts) selected(family lb.Family) []netip.Addr {
	return slices.DeleteFunc(ofFamily(f.NodePorts, family), func(a netip.Addr) bool { return !f.isLocal(a) })
}

// allNodePorts reports whether every address of a family answers on node ports.
func (f Facts) allNodePorts(family lb.Family) bool {
	return !slices.ContainsFunc(ofFamily(f.Local, family), func(a netip.Addr) bool {
		return !slices.Contains(f.NodePorts, a) && !f.inServiceCIDR(a)
	})
}
