package testbed

import (
	"fmt"
	"net/netip"
)

// wireGateway4 and wireGateway6 are the wire's own addresses: the nodes' default route, which ends there.
var (
	wireGateway4 = netip.MustParseAddr("192.168.50.1")
	wireGateway6 = netip.MustParseAddr("fd50::1")
)

// ServiceRanges returns the ranges of Service addresses that outside clients route by way of the first node:
// ClusterIPs of both families, LoadBalancer IPs, external IPs, and IPv6 addresses of both latter kinds.
func ServiceRanges() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.96.0.0/16"),
		netip.MustParsePrefix("fd96::/112"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("fd98::/64"),
	}
}

// onWire returns the addresses of a host on the wire, with their prefixes: last is its last number, the same digits
// in both families.
func onWire(last int) (netip.Prefix, netip.Prefix) {
	return netip.MustParsePrefix(fmt.Sprintf("192.168.50.%d/24", last)),
		netip.MustParsePrefix(fmt.Sprintf("fd50::%d/64", last))
}

// onNode returns addresses in the pod ranges of a node: 10.244.(node+1).last and fd24:0:0:(node+1)::last.
func onNode(node, last int) (netip.Prefix, netip.Prefix) {
	return netip.MustParsePrefix(fmt.Sprintf("10.244.%d.%d/24", node+1, last)),
		netip.MustParsePrefix(fmt.Sprintf("fd24:0:0:%d::%d/64", node+1, last))
}
