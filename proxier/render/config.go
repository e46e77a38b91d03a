package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/lb"
)

// Config is what rendering depends on besides the cluster's objects. It does not change while the daemon runs.
type Config struct {
	// Scheduler is the IPVS scheduler of Services that do not ask for another.
	Scheduler string
	// MasqueradeAll masquerades all traffic to ClusterIPs, whatever its source.
	MasqueradeAll bool
	// MasqueradeBit is the bit of the packet mark that asks for masquerading, 0 to 31.
	MasqueradeBit uint
	// Local says which sources are pods, so that their traffic to ClusterIPs needs no masquerading.
	Local Detector
	// PortOnly are ranges of external and LoadBalancer IPs that other hosts have too, such as a load balancer that sends
	// packets from them: only the Services' ports are made local there, as in the node's own networks.
	PortOnly []netip.Prefix
	// Loopback makes node ports answer on loopback addresses too, where NodePortAddresses selects those.
	Loopback bool
	// NFTables is set where the kernel has nf_tables. Without it, clients inside the cluster see at external addresses
	// of Services with policy Local what those outside see.
	NFTables bool
	// TCPBeLiberal says that connection tracking accepts TCP segments outside of the window.
	TCPBeLiberal bool
	// Families that are served. A node without IPv6 leaves it out.
	IPv4, IPv6 bool
}

// Detector recognises traffic that comes from local pods, by one of its fields. The zero Detector recognises
// nothing, and then ClusterIP traffic is not masqueraded at all (kube-proxy's NoOpLocalDetector).
type Detector struct {
	// CIDRs are the cluster's pod ranges, at most one a family (mode ClusterCIDR).
	CIDRs []netip.Prefix
	// NodeCIDR takes the ranges from the Node's podCIDRs, the first of each family (mode NodeCIDR).
	NodeCIDR bool
	// Interface is an interface name, or a prefix of one with a final + (modes BridgeInterface and
	// InterfaceNamePrefix), as iptables writes them.
	Interface string
}

// ranges returns the pod ranges by which local sources are told.
func (d Detector) ranges(n lb.Node) []netip.Prefix {
	if d.NodeCIDR {
		return n.PodCIDRs
	}
	return d.CIDRs
}

// sharesAddress reports whether other hosts may have an address too, so that only ports are made local there.
func (c Config) sharesAddress(a netip.Addr, facts Facts) bool {
	return facts.isNeighbour(a) || slices.ContainsFunc(c.PortOnly, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Mark returns the packet mark with only the masquerade bit set.
func (c Config) Mark() uint32 { return 1 << c.MasqueradeBit }
