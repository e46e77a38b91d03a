package ipvs

import (
	"cmp"
	"net/netip"
	"strconv"
)

// Proto is a transport protocol by its IANA number, as in struct ip_vs_service_user (linux/ip_vs.h).
type Proto uint8

// The protocols that IPVS balances by address and port and Kubernetes knows.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// String returns the name as ipvsadm prints it.
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

// Key identifies a virtual server, by address, port and protocol or by firewall mark.
type Key struct {
	// Addr is unmapped and without zone. With Mark it is the unspecified address of the family (0.0.0.0 or ::).
	Addr  netip.Addr
	Port  uint16 // host byte order; zero with Mark
	Proto Proto  // zero with Mark
	// Mark is the firewall mark of a mark-based virtual server, zero for the others.
	Mark uint32
}

// String returns the key as ipvsadm -Ln prints it, such as TCP 10.96.0.10:80 or FWM 7.
func (k Key) String() string {
	if k.Mark != 0 {
		s := "FWM " + strconv.FormatUint(uint64(k.Mark), 10)
		if k.Addr.Is6() {
			s += " IPv6"
		}
		return s
	}
	return k.Proto.String() + " " + netip.AddrPortFrom(k.Addr, k.Port).String()
}

// Compare orders keys: mark-based first, then by address, port and protocol.
func (k Key) Compare(o Key) int {
	return cmp.Or(-cmp.Compare(k.Mark, o.Mark), k.Addr.Compare(o.Addr), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Proto, o.Proto))
}

// Dest identifies a real server within its virtual server.
type Dest struct {
	Addr netip.Addr
	Port uint16
}

// String returns address:port.
func (d Dest) String() string { return netip.AddrPortFrom(d.Addr, d.Port).String() }

// Compare orders by address, then port.
func (d Dest) Compare(o Dest) int {
	return cmp.Or(d.Addr.Compare(o.Addr), cmp.Compare(d.Port, o.Port))
}
