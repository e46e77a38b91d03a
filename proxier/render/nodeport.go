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
	var out []netip.Addr
	for _, a := range local {
		if n.selects(a, node) {
			out = append(out, a)
		}
	}
	return out
}

func (n NodePortAddresses) selects(a netip.Addr, node lb.Node) bool {
	cidrs := slices.Clone(n.CIDRs)
	if ip, ok := node.IP(lb.FamilyOf(a)); n.Primary && ok {
		cidrs = append(cidrs, host(ip))
	}
	ofFamily := func(p netip.Prefix) bool { return lb.FamilyOf(p.Addr()) == lb.FamilyOf(a) }
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	return !slices.ContainsFunc(cidrs, ofFamily) || slices.ContainsFunc(cidrs, contains)
}

// Loopback returns where loopback leads to in each family in which it is selected (its first address is): to the node
// IP if that answers on node ports, else to the first address that does, else to a stand-in, which answers because of
// this alone and only to the node itself. A family in which the node has no address is left out, since nothing could
// be sent from there.
func (n NodePortAddresses) Loopback(local []netip.Addr, node lb.Node) []netip.Addr {
	var out []netip.Addr
	for _, l := range []struct{ loopback, standIn string }{
		{"127.0.0.1", standIn4}, {"::1", standIn6},
	} {
		loopback := netip.MustParseAddr(l.loopback)
		family := lb.FamilyOf(loopback)
		if !n.selects(loopback, node) || len(ofFamily(local, family)) == 0 {
			continue
		}
		selected := ofFamily(n.Select(local, node), family)
		ip, _ := node.IP(family)
		switch {
		case slices.Contains(selected, ip):
			out = append(out, ip)
		case len(selected) > 0:
			out = append(out, selected[0])
		default:
			out = append(out, netip.MustParseAddr(l.standIn))
		}
	}
	return out
}

// The stand-ins for loopback are addresses that no host has and no router forwards: the IPv4 dummy address (RFC 7600)
// and one of the discard prefix (RFC 6666). The node makes them local to itself like a Service's address.
const (
	standIn4 = "192.0.0.8"
	standIn6 = "100::8"
)
