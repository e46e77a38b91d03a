package ipvsnl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/internal/nlsock"
	"github.com/kube-hop/kube-hop/ipvs"
)

// Commands and attributes of an answer. Source: linux/ip_vs.h.
const (
	cmdGetService = 4 // IPVS_CMD_GET_SERVICE
	cmdGetDest    = 8 // IPVS_CMD_GET_DEST

	destActive   = 7 // IPVS_DEST_ATTR_ACTIVE_CONNS
	destInactive = 8
	destStats    = 10
	destFamily   = 11 // IPVS_DEST_ATTR_ADDR_FAMILY, Linux 3.18

	statsIn  = 2 // IPVS_STATS_ATTR_INPKTS
	statsOut = 3

	genlHeader = 4
)

// listingSize is what the kernel fills a message up to, if it sees room for it. Source: netlink_recvmsg and netlink_dump in
// net/netlink/af_netlink.c.
const listingSize = 32 << 10

// listing reads lists by netlink: all virtual servers, or the real servers of one. moby/ipvs does the same in three times the
// time, most of which goes into memory.
type listing struct {
	*nlsock.Socket

	family uint16 // the number of the generic netlink family IPVS
	seq    uint32
	out    []byte
}

func openListing(ns netns.NsHandle, family uint16) (*listing, error) {
	l := &listing{family: family}
	err := inNamespace(ns, func() (err error) {
		l.Socket, err = nlsock.Open(unix.NETLINK_GENERIC, listingSize, true)
		return err
	})
	return l, err
}

// virtuals returns the virtual servers of the namespace that are wanted. Between two messages of its answer the kernel
// remembers a position among the virtual servers of all network namespaces (ip_vs_genl_dump_services in ip_vs_ctl.c, Linux
// 6.12): when somebody deletes one in any of them, one of ours can be passed over.
func (l *listing) virtuals(want func(family uint16) bool) ([]libipvs.Service, error) {
	var all []libipvs.Service
	err := l.each(cmdGetService, nil, attrService, func(attrs []byte) error {
		if !want(familyFirst(attrs)) {
			return nil
		}
		s, err := parseVirtual(attrs)
		all = append(all, s)
		return err
	})
	return all, err
}

// reals returns the real servers of a virtual server, none for one that does not exist.
func (l *listing) reals(k ipvs.Key) ([]toldReal, error) {
	var all []toldReal
	err := l.each(cmdGetDest, &k, attrDest, func(attrs []byte) error {
		r, err := parseReal(attrs, k)
		all = append(all, r)
		return err
	})
	return all, err
}

// each calls f for every attribute of the kind in the answer. It reads the answer to its end whatever f returns, since the
// kernel begins no other one before.
func (l *listing) each(cmd uint8, k *ipvs.Key, kind uint16, f func(attrs []byte) error) error {
	if err := l.ask(cmd, k); err != nil {
		return err
	}
	var failed error
	for {
		received, err := l.Receive()
		if err != nil {
			return err
		}
		for len(received) >= unix.NLMSG_HDRLEN {
			var m message
			if m, received, err = cut(received); err != nil {
				return err
			}
			switch {
			case m.seq != l.seq: // the rest of an answer that was given up
			case m.kind == unix.NLMSG_DONE || m.kind == unix.NLMSG_ERROR:
				if err := m.refusal(); err != nil {
					return err
				}
				return failed
			case failed == nil && m.kind == l.family && len(m.body) >= genlHeader:
				failed = eachOf(kind, m.body[genlHeader:], f)
			}
		}
	}
}

// ask sends a request for a listing: of the real servers of a virtual server, or, without one, of all virtual servers.
func (l *listing) ask(cmd uint8, k *ipvs.Key) error {
	l.seq++
	l.out = appendHeader(l.out[:0], l.family, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, l.seq, cmd)
	if k != nil {
		l.out = appendService(l.out, ipvs.Op{Key: *k}, false)
	}
	binary.NativeEndian.PutUint32(l.out, uint32(len(l.out))) //nolint:gosec // some dozen bytes
	return l.Send(l.out)
}

// message is one netlink message that was received.
type message struct {
	kind uint16
	seq  uint32
	body []byte
}

// cut takes the first message off what was received, which is at least as long as a header.
func cut(b []byte) (m message, rest []byte, err error) {
	length := int(binary.NativeEndian.Uint32(b))
	if length < unix.NLMSG_HDRLEN || length > len(b) {
		return m, nil, fmt.Errorf("%w: message of %d bytes in %d", errWire, length, len(b))
	}
	m = message{kind: binary.NativeEndian.Uint16(b[4:]), seq: binary.NativeEndian.Uint32(b[8:]), body: b[unix.NLMSG_HDRLEN:length]}
	return m, b[min(nlattr.Align4(length), len(b)):], nil
}

// refusal returns the error that the last message of an answer says, if any.
func (m message) refusal() error {
	if len(m.body) < 4 {
		return nil
	}
	if errno := -int32(binary.NativeEndian.Uint32(m.body)); errno != 0 { //nolint:gosec // a negative errno
		return unix.Errno(errno) //nolint:wrapcheck // the caller says what was asked for
	}
	return nil
}

// eachOf calls f for every attribute of a kind.
func eachOf(kind uint16, attrs []byte, f func(attrs []byte) error) error {
	return nlattr.Each(attrs, func(typ uint16, value []byte) error {
		if typ != kind {
			return nil
		}
		return f(value)
	})
}

// familyFirst returns the address family of a virtual server, which the kernel says first (ip_vs_genl_fill_service), or 0.
func familyFirst(attrs []byte) uint16 {
	if len(attrs) < 6 || binary.NativeEndian.Uint16(attrs[2:]) != svcFamily {
		return 0
	}
	return binary.NativeEndian.Uint16(attrs[4:])
}

// parseVirtual reads a virtual server.
func parseVirtual(attrs []byte) (s libipvs.Service, err error) {
	var addr []byte
	err = nlattr.Each(attrs, func(typ uint16, v []byte) error {
		var err error
		switch typ {
		case svcFamily:
			s.AddressFamily, err = number16(v)
		case svcProtocol:
			s.Protocol, err = number16(v)
		case svcAddress:
			addr = v
		case svcPort:
			s.Port, err = number16(v)
			s.Port = swapPort(s.Port)
		case svcMark:
			s.FWMark, err = number32(v)
		case svcScheduler:
			s.SchedName = unix.ByteSliceToString(v)
		case svcFlags:
			s.Flags, err = number32(v)
		case svcTimeout:
			s.Timeout, err = number32(v)
		case svcNetmask:
			s.Netmask, err = number32(v)
		}
		return err
	})
	if err != nil {
		return s, fmt.Errorf("virtual server: %w", err)
	}
	if a, ok := wireIP(addr, s.AddressFamily); ok {
		s.Address = net.IP(a.AsSlice())
	}
	return s, nil
}

// parseReal reads a real server of the virtual server k.
func parseReal(attrs []byte, k ipvs.Key) (r toldReal, err error) {
	family := uint16(unix.AF_INET) // older kernels do not say it
	if k.Addr.Is6() {
		family = unix.AF_INET6
	}
	var addr []byte
	err = nlattr.Each(attrs, func(typ uint16, v []byte) error {
		var err error
		switch typ {
		case destAddress:
			addr = v
		case destFamily:
			family, err = number16(v)
		case destPort:
			r.dest.Port, err = number16(v)
			r.dest.Port = swapPort(r.dest.Port)
		case destMethod:
			r.flags, err = number32(v)
		case destWeight:
			var weight uint32
			weight, err = number32(v)
			r.weight = int32(weight) //nolint:gosec // the kernel's is signed
		case destUpper:
			r.upper, err = number32(v)
		case destLower:
			r.lower, err = number32(v)
		case destActive:
			r.conns.Active, err = count(v)
		case destInactive:
			r.conns.Inactive, err = count(v)
		case destStats:
			err = parseStats(v, &r.conns)
		}
		return err
	})
	if err != nil {
		return r, fmt.Errorf("real server: %w", err)
	}
	var ok bool
	if r.dest.Addr, ok = wireIP(addr, family); !ok {
		return r, fmt.Errorf("%w: real server %v of family %d", errWire, addr, family)
	}
	return r, nil
}

func parseStats(attrs []byte, c *ipvs.Conns) error {
	return nlattr.Each(attrs, func(typ uint16, v []byte) (err error) {
		switch typ {
		case statsIn:
			c.In, err = number32(v)
		case statsOut:
			c.Out, err = number32(v)
		}
		return err
	})
}

// wireIP reads an address, which the kernel sends in 16 bytes whatever its family is.
func wireIP(b []byte, family uint16) (netip.Addr, bool) {
	switch {
	case family == unix.AF_INET && len(b) >= 4:
		return netip.AddrFrom4([4]byte(b)), true
	case family == unix.AF_INET6 && len(b) >= 16:
		return netip.AddrFrom16([16]byte(b)), true
	default:
		return netip.Addr{}, false
	}
}

// number16 and number32 read numbers in the machine's byte order. Of struct ip_vs_flags the first one is the bits.
func number16(v []byte) (uint16, error) {
	if len(v) < 2 {
		return 0, nlattr.ErrShort
	}
	return binary.NativeEndian.Uint16(v), nil
}

func number32(v []byte) (uint32, error) {
	if len(v) < 4 {
		return 0, nlattr.ErrShort
	}
	return binary.NativeEndian.Uint32(v), nil
}

func count(v []byte) (int, error) {
	n, err := number32(v)
	return int(n), err
}
