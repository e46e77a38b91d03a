package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/lb"
)

// Facts is what rendering depends on that is true of this node or of the whole cluster, and can change at run
// time. A change renders everything again.
type Facts struct {
	Node lb.Node
	// Local are the addresses of this node's interfaces, sorted, without loopback, link-local and bound VIPs.
	Local []netip.Addr
	// OnLink are the networks that this node's interfaces are in, sorted.
	OnLink []netip.Prefix
	// NodePorts are the addresses that answer on node ports: a subset of Local, and stand-ins for loopback.
	NodePorts []netip.Addr
	// Loopback has, for each family whose loopback addresses answer on node ports, the one of NodePorts that they
	// lead to.
	Loopback []netip.Addr
	// ServiceCIDRs are the ranges of ClusterIPs; each is bound as a whole, so that a ClusterIP needs no binding of
	// its own.
	ServiceCIDRs []netip.Prefix
	// NodeLabels are the labels of the cluster's nodes by name of the node, as far as a Service's weights ask for them;
	// nil when none does. A change concerns only those Services and is not looked at by Equal.
	NodeLabels map[string]map[string]string
}

// Equal reports whether both say the same.
func (f Facts) Equal(o Facts) bool {
	return f.Node.Equal(o.Node) && slices.Equal(f.Local, o.Local) && slices.Equal(f.NodePorts, o.NodePorts) &&
		slices.Equal(f.OnLink, o.OnLink) && slices.Equal(f.Loopback, o.Loopback) &&
		slices.Equal(f.ServiceCIDRs, o.ServiceCIDRs)
}

// isLocal reports whether the node has the address on one of its interfaces.
func (f Facts) isLocal(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(f.Local, a, netip.Addr.Compare)
	return found
}

// inServiceCIDR reports whether a range that is bound as a whole holds the address.
func (f Facts) inServiceCIDR(a netip.Addr) bool {
	return slices.ContainsFunc(f.ServiceCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isNeighbour reports whether an address that the node does not have is in one of its networks. It may be another
// host's, whatever a Service says.
func (f Facts) isNeighbour(a netip.Addr) bool {
	return !f.isLocal(a) && slices.ContainsFunc(f.OnLink, func(p netip.Prefix) bool { return p.Contains(a) })
}

// source is the address that connections from the node itself use towards addresses bound here; the zero Addr
// leaves the choice to the kernel. An address that no interface has cannot be a route's source.
func (f Facts) source(a netip.Addr) netip.Addr {
	if ip, ok := f.Node.IP(lb.FamilyOf(a)); ok && f.isLocal(ip) {
		return ip
	}
	for _, l := range f.Local {
		if lb.FamilyOf(l) == lb.FamilyOf(a) {
			return l
		}
	}
	return netip.Addr{}
}
