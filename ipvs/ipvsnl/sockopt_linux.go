package ipvsnl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// Options of a socket that IPVS answers. Source: IP_VS_SO_GET_* in linux/ip_vs.h.
const (
	optInfo     = 1153 // struct ip_vs_getinfo
	optVirtuals = 1154 // struct ip_vs_get_services
	optVirtual  = 1155 // struct ip_vs_service_entry
	optReals    = 1156 // struct ip_vs_get_dests
)

// What the kernel copies, laid out as C does where a number of 64 bits is aligned to 8 bytes. Addresses and ports are in
// network byte order. Source: linux/ip_vs.h.
type (
	// statsEntry is struct ip_vs_stats_user.
	statsEntry struct {
		_       uint32
		In, Out uint32 // packets
		_       uint32 // for the alignment
		_       [2]uint64
		_       [6]uint32
	}
	// keyEntry is what structures that are about a virtual server begin with.
	keyEntry struct {
		Proto uint16
		_     uint16
		Addr  uint32
		Port  uint16
		_     uint16
		Mark  uint32
	}
	// virtualEntry is struct ip_vs_service_entry.
	virtualEntry struct {
		keyEntry

		Scheduler [16]byte
		Flags     uint32
		Timeout   uint32 // seconds
		Netmask   uint32
		Reals     uint32 // how many real servers there are
		_         statsEntry
	}
	// virtualsHead is struct ip_vs_get_services without its entries.
	virtualsHead struct {
		Count uint32
		_     uint32
	}
	// realEntry is struct ip_vs_dest_entry.
	realEntry struct {
		Addr             uint32
		Port             uint16
		_                uint16
		Flags            uint32
		Weight           int32
		Upper, Lower     uint32
		Active, Inactive uint32
		_                uint32 // persistent connections
		_                uint32 // for the alignment
		Stats            statsEntry
	}
	// realsHead is struct ip_vs_get_dests without its entries.
	realsHead struct {
		keyEntry

		Count uint32
		_     uint32
	}
)

// Sizes in words of 8 bytes.
const (
	wordsOfVirtual  = int(unsafe.Sizeof(virtualEntry{}) / 8)
	wordsOfReal     = int(unsafe.Sizeof(realEntry{}) / 8)
	wordsOfVirtuals = int(unsafe.Sizeof(virtualsHead{}) / 8)
	wordsOfReals    = int(unsafe.Sizeof(realsHead{}) / 8)
)

const (
	spareVirtual = 64 // virtual servers that may be added between counting and reading
	someReals    = 64 // real servers for which there is room at first
)

// options reads IPv4 virtual servers by getsockopt(2), the older interface of IPVS, which ipvsadm falls back to. The kernel
// copies flat entries, a whole virtual server with its real servers in one call. By netlink the same takes three calls and
// packs each number into an attribute: some twenty times as long. It has no word for IPv6.
type options struct {
	fd  int
	buf []uint64 // room for one virtual server with its real servers
}

// openOptions opens a socket in the network namespace, the calling thread's if ns is not open. It is nil where the kernel
// does not answer as expected; netlink serves then.
func openOptions(ns netns.NsHandle) *options {
	o := &options{fd: -1, buf: make([]uint64, wordsOfReals+someReals*wordsOfReal)}
	err := inNamespace(ns, func() (err error) {
		o.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // any kind will do; a raw one takes a privilege more
		return err                                                                  //nolint:wrapcheck // nobody looks at it
	})
	if err != nil {
		return nil
	}
	if _, err := o.virtuals(); err != nil {
		_ = o.close()
		return nil
	}
	return o
}

func (o *options) close() error { return unix.Close(o.fd) } //nolint:wrapcheck // it was only read

// serves tells whether a virtual server can be read this way.
func (o *options) serves(k ipvs.Key) bool { return o != nil && k.Addr.Is4() }

// get asks for an option. The buffer holds the question and then the answer; the kernel wants it to be as long as the answer.
func (o *options) get(option int, buf []uint64) error {
	size := uint32(len(buf) * 8) //nolint:gosec // far less
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(o.fd), unix.IPPROTO_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno //nolint:wrapcheck // the callers say what was asked for
	}
	return nil
}

// listed is a virtual server and how many real servers it has.
type listed struct {
	libipvs.Service

	reals int
}

// virtuals returns all IPv4 virtual servers of the namespace. The kernel is locked meanwhile: none is passed over.
func (o *options) virtuals() ([]listed, error) {
	for room := 0; ; {
		var info [2]uint64 // version, the size of a table, the number of virtual servers
		if err := o.get(optInfo, info[:]); err != nil {
			return nil, fmt.Errorf("count virtual servers: %w", err)
		}
		room = max(2*room, int(*(*uint32)(unsafe.Pointer(&info[1])))+spareVirtual)
		buf := make([]uint64, wordsOfVirtuals+room*wordsOfVirtual)
		(*virtualsHead)(unsafe.Pointer(&buf[0])).Count = uint32(room) //nolint:gosec // far less
		if err := o.get(optVirtuals, buf); err != nil {
			return nil, fmt.Errorf("list virtual servers: %w", err)
		}
		// The kernel does not say how many there were: the rest stays zero, which no virtual server is.
		var all []listed
		for _, e := range unsafe.Slice((*virtualEntry)(unsafe.Pointer(&buf[wordsOfVirtuals])), room) {
			if e.Proto == 0 && e.Mark == 0 {
				return all, nil
			}
			all = append(all, e.listed())
		}
	}
}

func (e *virtualEntry) listed() listed {
	l := listed{Service: libipvs.Service{
		AddressFamily: unix.AF_INET, FWMark: e.Mark, SchedName: unix.ByteSliceToString(e.Scheduler[:]), Flags: e.Flags, Timeout: e.Timeout, Netmask: e.Netmask,
	}, reals: int(e.Reals)}
	if e.Mark == 0 {
		a := addrOfWire(e.Addr).As4()
		l.Protocol, l.Address, l.Port = e.Proto, net.IP(a[:]), swapPort(e.Port)
	}
	return l
}

// virtual returns one virtual server; ESRCH if there is none.
func (o *options) virtual(k ipvs.Key) (listed, error) {
	buf := o.buf[:wordsOfVirtual]
	clear(buf)
	e := (*virtualEntry)(unsafe.Pointer(&buf[0]))
	e.keyEntry = entryOf(k)
	if err := o.get(optVirtual, buf); err != nil {
		return listed{}, err
	}
	return e.listed(), nil
}

// reals returns the real servers of a virtual server, ESRCH if there is none. Those of the other address family cannot be
// told and are left out. The entries are valid until the next call.
func (o *options) reals(k ipvs.Key) ([]realEntry, error) {
	for {
		room := (len(o.buf) - wordsOfReals) / wordsOfReal
		clear(o.buf)
		*(*realsHead)(unsafe.Pointer(&o.buf[0])) = realsHead{keyEntry: entryOf(k), Count: uint32(room)} //nolint:gosec // far less
		if err := o.get(optReals, o.buf); err != nil {
			return nil, err
		}
		// As with virtual servers. No real server has the address 0.0.0.0.
		entries := unsafe.Slice((*realEntry)(unsafe.Pointer(&o.buf[wordsOfReals])), room)
		for n := range entries {
			if entries[n].Addr == 0 {
				return entries[:n], nil
			}
		}
		o.buf = make([]uint64, wordsOfReals+2*room*wordsOfReal)
	}
}

func (e *realEntry) told() toldReal {
	return toldReal{
		dest:   ipvs.Dest{Addr: addrOfWire(e.Addr), Port: swapPort(e.Port)},
		weight: e.Weight, flags: e.Flags, upper: e.Upper, lower: e.Lower,
		conns: ipvs.Conns{Active: int(e.Active), Inactive: int(e.Inactive), In: e.Stats.In, Out: e.Stats.Out},
	}
}

// swapPort turns a port from or into network byte order.
func swapPort(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

func addrOfWire(v uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func entryOf(k ipvs.Key) keyEntry {
	b := k.Addr.As4()
	return keyEntry{Proto: uint16(k.Proto), Addr: binary.NativeEndian.Uint32(b[:]), Port: swapPort(k.Port), Mark: k.Mark}
}
