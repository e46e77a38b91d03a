package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/lb"
)

// NodePortAddresses selects the addresses that answer on node ports (--nodeport-addresses). The zero value selects
// all of the node's addresses.
type NodePortAddresses struct {
	// Primary selects the node IPs, the first address of each family of the Node object.
	Primary bool
	// CIDRs select the local addresses inside them. A family without a CIDR (and without a node IP, if Primary is
	// set) gets all its addresses, as in kube-proxy.
	CIDRs []netip.Prefix
}

// Select returns those of the node's addresses that answer on node ports, sorted.
func (n NodePortAddresses) Select(local []netip.Addr, node lb.Node) []netip.Addr {
	cidrs := slices.Clone(n.CIDRs)
	if n.Primary {
		for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
			if ip, ok := node.IP(f); ok {
				cidrs = append(cidrs, host(ip))
			}
		}
	}
	var out []netip.Addr
	for _, a := range local {
		ofFamily := func(p netip.Prefix) bool { return lb.FamilyOf(p.Addr()) == lb.FamilyOf(a) }
		contains := func(p netip.Prefix) bool { return p.Contains(a) }
		if !slices.ContainsFunc(cidrs, ofFamily) || slices.ContainsFunc(cidrs, contains) {
			out = append(out, a)
		}
	}
	return out
}
