package render

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// Kind is what makes a Service answer on a frontend.
type Kind uint8

// The kinds of frontend, in the order in which they are evaluated: when two claim the same address, port and
// protocol, a node port or health check gives way to any other (kube-proxy evaluates node ports last).
const (
	ClusterIP Kind = iota + 1
	ExternalIP
	LoadBalancerIP
	NodePort
	// HealthCheck is a healthCheckNodePort, which the daemon itself answers: the frontend has no virtual server.
	HealthCheck
)

// String returns the word that Kubernetes uses.
func (k Kind) String() string {
	switch k {
	case ClusterIP:
		return "ClusterIP"
	case ExternalIP:
		return "ExternalIP"
	case LoadBalancerIP:
		return "LoadBalancerIP"
	case NodePort:
		return "NodePort"
	case HealthCheck:
		return "HealthCheck"
	}
	return "Kind?"
}

// Masquerade says whose connections through a frontend leave with an address of this node as their source.
type Masquerade uint8

// The masquerade classes.
const (
	// MasqueradeForeign masquerades sources that are not local pods (ClusterIP traffic).
	MasqueradeForeign Masquerade = iota + 1
	// MasqueradeAlways masquerades every source (external traffic, policy Cluster).
	MasqueradeAlways
	// MasqueradeNode masquerades this node's own connections only (external traffic, policy Local, which keeps the
	// client's address).
	MasqueradeNode
)

// Drop says whose connections a frontend drops.
type Drop uint8

// The classes of clients that are dropped.
const (
	DropNobody Drop = iota
	// DropOutside drops clients outside of the cluster: neither pods nor this node.
	DropOutside
	DropEverybody
)

// Frontend is one address, port and protocol that a service port answers on, and everything that follows from it.
type Frontend struct {
	Key  ipvs.Key
	Kind Kind

	Service  lb.Name
	PortName string
	// Created is the Service's creation time in seconds since 1970; the older of two claims wins.
	Created int64

	Virtual ipvs.VirtualServer
	// Others are the endpoints that are no real servers, sorted: what matters of them is how long one that was a real
	// server drains.
	Others     []Other
	Masquerade Masquerade
	// Ranges are the only sources that may use the frontend; nil for no restriction.
	Ranges []netip.Prefix
	// Drop says whose new connections are dropped because there are endpoints, but none that the traffic policy allows.
	Drop Drop
	// Inside is what clients inside the cluster see instead; nil if they see the same as those outside.
	Inside *View
	// Loopback is set when loopback addresses, with the same port, lead to the frontend.
	Loopback bool
	// VIP is set when the address is made local by kube-hop, and hence guarded; not for the node's own addresses.
	VIP bool
	// OnlyPort is set when the frontend's port alone is made local, because the address may be another host's.
	OnlyPort bool
}

// beats orders claims to one key: node ports last, then the older Service, then by name so that the outcome does
// not depend on the order of events.
func (f Frontend) beats(o Frontend) bool {
	return cmp.Or(boolCompare(f.Kind >= NodePort, o.Kind >= NodePort), cmp.Compare(f.Created, o.Created),
		f.Service.Compare(o.Service)) < 0
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// host returns the full-length prefix of an address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// equal reports whether both frontends ask for the same kernel state and belong to the same Service port.
func (f Frontend) equal(o Frontend) bool {
	return f.Key == o.Key && f.Kind == o.Kind && f.Service == o.Service && f.PortName == o.PortName &&
		f.Created == o.Created && f.Masquerade == o.Masquerade && f.VIP == o.VIP && f.Drop == o.Drop &&
		f.Loopback == o.Loopback && f.OnlyPort == o.OnlyPort && f.Inside.equal(o.Inside) &&
		slices.Equal(f.Ranges, o.Ranges) && slices.Equal(f.Others, o.Others) && f.Virtual.Equal(o.Virtual)
}
