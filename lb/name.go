package lb

import (
	"cmp"
	"net/netip"
	"strconv"
)

// Name identifies a namespaced Kubernetes object.
type Name struct {
	Namespace, Name string
}

// String returns namespace/name, the form operators search logs for.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then name.
func (n Name) Compare(o Name) int {
	return cmp.Or(cmp.Compare(n.Namespace, o.Namespace), cmp.Compare(n.Name, o.Name))
}

// Proto is a transport protocol by its IANA number.
type Proto uint8

// The protocols a Service port can have (core/v1 Protocol). Numbers: IANA protocol-numbers.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// String returns the name that Kubernetes uses, such as TCP.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// Family is an IP address family.
type Family uint8

// The families of a dual-stack cluster.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns IPv4 or IPv6, the label values of kube-proxy's metrics.
func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

// FamilyOf returns the family of an unmapped address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}
