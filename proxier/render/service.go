package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// Service renders one Service: the frontends it claims, each key once. Nothing but the arguments influences the
// result, and nothing of other Services is looked at.
func Service(s lb.Service, slicesOf []lb.EndpointSlice, facts Facts, cfg Config) []Frontend {
	r := serviceRenderer{service: s, facts: facts, cfg: cfg}
	for _, family := range []lb.Family{lb.IPv4, lb.IPv6} {
		if !cfg.serves(family) {
			continue
		}
		clusterIP, ok := s.ClusterIP(family)
		if !ok {
			continue // no ClusterIP in a family: nothing of the Service exists there, not even node ports
		}
		for _, port := range s.Ports {
			r.port(clusterIP, port, endpointsOf(slicesOf, family, port))
		}
		r.healthCheck(family)
	}
	return r.out
}

func (c Config) serves(f lb.Family) bool {
	if f == lb.IPv4 {
		return c.IPv4
	}
	return c.IPv6
}

// serviceRenderer collects the frontends of one Service.
type serviceRenderer struct {
	service lb.Service
	facts   Facts
	cfg     Config
	out     []Frontend
	seen    map[ipvs.Key]bool // the keys of out, as far as they were looked at
}

// port adds the frontends of one service port in the family of its ClusterIP, in order of evaluation.
func (r *serviceRenderer) port(clusterIP netip.Addr, port lb.ServicePort, eps []Endpoint) {
	family := lb.FamilyOf(clusterIP)
	views := Select(eps, r.facts.Node)
	// One slice serves all frontends of a view: values are never changed, so they can be shared.
	cluster, local := r.realServers(views.Cluster), r.realServers(views.Local)
	notCluster := others(eps, views.Cluster)
	var notLocal []Other
	if r.service.InternalLocal || r.service.ExternalLocal {
		notLocal = others(eps, views.Local)
	}
	inside, notInside := cluster, notCluster
	if r.service.InternalLocal {
		inside, notInside = local, notLocal
	}
	outside, notOutside, masquerade := cluster, notCluster, MasqueradeAlways
	if r.service.ExternalLocal {
		outside, notOutside, masquerade = local, notLocal, MasqueradeNode
	}

	config := schedulerConfig(r.service, r.cfg)
	dropIfEmpty := func(servers []ipvs.RealServer, whom Drop) Drop {
		if views.Any && len(servers) == 0 {
			return whom
		}
		return DropNobody
	}
	external := Frontend{
		PortName: port.Name, Masquerade: masquerade, Drop: dropIfEmpty(outside, DropEverybody),
		Virtual: ipvs.VirtualServer{Config: config, Real: outside}, Others: notOutside,
	}
	if r.service.ExternalLocal && r.cfg.NFTables {
		external.Drop = dropIfEmpty(outside, DropOutside)
		external.Inside = &View{
			ID:      ViewID{r.service.Name, port.Name, port.Proto, family},
			Virtual: ipvs.VirtualServer{Config: viewConfig(config), Real: cluster}, Others: notCluster,
		}
	}
	if !r.service.LocalListener || !r.facts.isLocal(clusterIP) {
		r.add(clusterIP, port.Proto, port.Port, Frontend{
			Kind: ClusterIP, PortName: port.Name, Masquerade: MasqueradeForeign, Drop: dropIfEmpty(inside, DropEverybody),
			Virtual: ipvs.VirtualServer{Config: config, Real: inside}, Others: notInside,
		})
	}
	for _, a := range ofFamily(r.service.ExternalIPs, family) {
		r.add(a, port.Proto, port.Port, external.as(ExternalIP))
	}
	restricted := external.as(LoadBalancerIP)
	restricted.Ranges = sourceRanges(r.service.SourceRanges, family)
	for _, a := range ofFamily(r.service.LoadBalancerIPs, family) {
		r.add(a, port.Proto, port.Port, restricted)
	}
	if port.NodePort == 0 {
		return
	}
	for _, a := range ofFamily(r.facts.NodePorts, family) {
		if r.facts.isLocal(a) || port.Proto != lb.SCTP { // whose sockets cannot be led to a stand-in
			r.add(a, port.Proto, port.NodePort, r.nodePort(a, port.Proto, external.as(NodePort)))
		}
	}
}

// nodePort completes the frontend of a node port. A stand-in for loopback, alone among the addresses that are not the
// node's, must not serve anybody else.
func (r *serviceRenderer) nodePort(a netip.Addr, proto lb.Proto, f Frontend) Frontend {
	f.Loopback = r.cfg.Loopback && proto != lb.SCTP && slices.Contains(r.facts.Loopback, a)
	if !r.facts.isLocal(a) {
		for _, l := range ofFamily(r.facts.Local, lb.FamilyOf(a)) {
			f.Ranges = append(f.Ranges, host(l))
		}
	}
	return f
}

// as returns the frontend as one of another kind.
func (f Frontend) as(k Kind) Frontend {
	f.Kind = k
	return f
}

// sourceRanges returns the ranges of a family, nil if they restrict nothing: none is given, or one is all addresses.
func sourceRanges(all []netip.Prefix, f lb.Family) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		if lb.FamilyOf(p.Addr()) != f {
			continue
		}
		if p.Bits() == 0 {
			return nil
		}
		out = append(out, p)
	}
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out)
}

// add enters a frontend at an address and port.
func (r *serviceRenderer) add(addr netip.Addr, proto lb.Proto, number uint16, f Frontend) {
	key := ipvs.Key{Addr: addr, Port: number, Proto: ipvs.Proto(proto)}
	if r.claimed(key) {
		return // an external IP that is also a LoadBalancer IP, or a node address with the node port's number
	}
	f.Key, f.Service, f.Created, f.VIP = key, r.service.Name, r.service.Created, !r.facts.isLocal(addr)
	if f.VIP && f.Kind != ClusterIP && r.cfg.sharesAddress(addr, r.facts) && !r.facts.inServiceCIDR(addr) {
		f.VIP, f.OnlyPort = false, true
	}
	r.out = append(r.out, f)
}

// claimed reports whether a frontend of the Service has the key. A Service has few frontends, but nobody promises it.
func (r *serviceRenderer) claimed(k ipvs.Key) bool {
	const few = 16
	if len(r.out) < few {
		return slices.ContainsFunc(r.out, func(f Frontend) bool { return f.Key == k })
	}
	if r.seen == nil {
		r.seen = make(map[ipvs.Key]bool, 2*few)
	}
	for _, f := range r.out[len(r.seen):] {
		r.seen[f.Key] = true
	}
	return r.seen[k]
}

func ofFamily(addrs []netip.Addr, f lb.Family) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if lb.FamilyOf(a) == f {
			out = append(out, a)
		}
	}
	return out
}
