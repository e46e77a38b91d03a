package lb

import (
	"net/netip"
	"slices"
)

// Node is what the Node object of this node says.
type Node struct {
	// Name is the Node's name, lower case.
	Name string
	// Zone is the label topology.kubernetes.io/zone; empty when unknown.
	Zone string
	// Addresses are all InternalIPs, then all ExternalIPs, each in status order. The first of a family is the
	// node IP of that family.
	Addresses []netip.Addr
	// PodCIDRs is spec.podCIDRs.
	PodCIDRs []netip.Prefix
	// Leaving is set while the node is being deleted or tainted for removal by the cluster autoscaler
	// (KEP-3836): /healthz turns 503 so that load balancers stop sending.
	Leaving bool
}

// IP returns the node IP of a family.
func (n Node) IP(f Family) (netip.Addr, bool) {
	for _, a := range n.Addresses {
		if FamilyOf(a) == f {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Equal reports whether both say the same.
func (n Node) Equal(o Node) bool {
	return n.Name == o.Name && n.Zone == o.Zone && n.Leaving == o.Leaving &&
		slices.Equal(n.Addresses, o.Addresses) && slices.Equal(n.PodCIDRs, o.PodCIDRs)
}
