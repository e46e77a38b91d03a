package ipvsnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	libipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// Flags of a virtual server that are not settings of ours. Source: linux/ip_vs.h.
const (
	flagPersistent = 0x0001 // IP_VS_SVC_F_PERSISTENT: the timeout counts
	flagHashed     = 0x0002 // IP_VS_SVC_F_HASHED: the kernel's own mark of what is in its table
)

// Netmasks of full length: for IPv4 the mask itself, for IPv6 its length. The kernel refuses 0 for IPv6 even where
// nothing persists. Source: ip_vs_add_service in net/netfilter/ipvs/ip_vs_ctl.c.
const (
	fullMask4 = 0xffffffff
	fullMask6 = 128
)

// errWire is wrapped by the errors about values from the kernel that make no sense.
var errWire = errors.New("unexpected answer from the kernel")

// service is the virtual server as moby/ipvs wants it. Where only the key counts, c may be zero.
func service(k ipvs.Key, c ipvs.Config) libipvs.Service {
	s := libipvs.Service{
		AddressFamily: unix.AF_INET,
		Netmask:       fullMask4,
		FWMark:        k.Mark,
		SchedName:     c.Scheduler,
		Flags:         uint32(c.Flags),
	}
	if k.Addr.Is6() {
		s.AddressFamily, s.Netmask = unix.AF_INET6, fullMask6
	}
	if k.Mark == 0 {
		s.Address, s.Port, s.Protocol = net.IP(k.Addr.AsSlice()), k.Port, uint16(k.Proto)
	}
	if c.Persistence > 0 {
		s.Flags |= flagPersistent
		s.Timeout = uint32(c.Persistence / time.Second) //nolint:gosec // Validate bounds it
	}
	return s
}

// fromService is the inverse of service.
func fromService(s *libipvs.Service) (ipvs.Key, ipvs.Config, error) {
	k, err := keyOf(s)
	if err != nil {
		return ipvs.Key{}, ipvs.Config{}, err
	}
	// A bit without a name stays, so that the virtual server equals no wanted one and gets edited.
	c := ipvs.Config{Scheduler: s.SchedName, Flags: ipvs.Flags(s.Flags &^ (flagPersistent | flagHashed))}
	if s.Flags&flagPersistent != 0 {
		c.Persistence = time.Duration(s.Timeout) * time.Second
		if s.Timeout == 0 || s.Netmask != service(k, c).Netmask {
			c.Flags |= ipvs.FlagForeign
		}
	}
	return k, c, nil
}

func keyOf(s *libipvs.Service) (ipvs.Key, error) {
	if s.AddressFamily != unix.AF_INET && s.AddressFamily != unix.AF_INET6 {
		return ipvs.Key{}, fmt.Errorf("%w: virtual server of address family %d", errWire, s.AddressFamily)
	}
	if s.FWMark != 0 {
		if s.AddressFamily == unix.AF_INET6 {
			return ipvs.Key{Addr: netip.IPv6Unspecified(), Mark: s.FWMark}, nil
		}
		return ipvs.Key{Addr: netip.IPv4Unspecified(), Mark: s.FWMark}, nil
	}
	a, err := addrOf(s.Address, s.AddressFamily)
	if err != nil || s.Protocol > 255 {
		return ipvs.Key{}, fmt.Errorf("%w: virtual server %v of protocol %d", errWire, s.Address, s.Protocol)
	}
	return ipvs.Key{Addr: a, Port: s.Port, Proto: ipvs.Proto(s.Protocol)}, nil
}

// addrOf does not unmap: ::ffff:10.0.0.1 of an IPv6 virtual server is not the address 10.0.0.1.
func addrOf(ip net.IP, family uint16) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || a.Is4() != (family == unix.AF_INET) {
		return netip.Addr{}, fmt.Errorf("%w: address %v of family %d", errWire, []byte(ip), family)
	}
	return a, nil
}

// destination is the real server as moby/ipvs wants it, with masquerading. The address family is the virtual
// server's: that library does not send one.
func destination(r ipvs.RealServer) libipvs.Destination {
	d := libipvs.Destination{
		AddressFamily:   unix.AF_INET,
		Address:         net.IP(r.Addr.AsSlice()),
		Port:            r.Port,
		Weight:          r.Weight,
		ConnectionFlags: libipvs.ConnectionFlagMasq,
	}
	if r.Addr.Is6() {
		d.AddressFamily = unix.AF_INET6
	}
	return d
}

// toldReal is a real server as the kernel tells of it.
type toldReal struct {
	dest         ipvs.Dest
	weight       int32
	flags        uint32 // of them the forwarding method
	upper, lower uint32 // connection thresholds, 0 for none
	conns        ipvs.Conns
}

// real is what package ipvs knows of it.
func (r toldReal) real() ipvs.RealServer {
	out := ipvs.RealServer{Dest: r.dest, Weight: int(r.weight)}
	masq := r.flags&libipvs.ConnectionFlagFwdMask == libipvs.ConnectionFlagMasq
	if !masq || r.upper != 0 || r.lower != 0 || r.weight < 0 {
		out.Weight = ipvs.WeightForeign
	}
	return out
}
