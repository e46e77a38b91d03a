package nftnl

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/nftables"
)

// location is where the kernel finds a field, or how it changes it.
type location struct {
	size int // bytes
	// host is set for numbers in host byte order.
	host bool
	expr string // meta, ct, fib or payload
	key  uint32 // of meta or ct; the address of fib
	dir  int    // of ct: 0 original, 1 reply, -1 not asked for
	// base and offset are where a payload is.
	base, offset uint32
	// csum is the kind of checksum that a change has to be followed by, csumAt its offset from base, csumPseudo
	// whether the address takes part in that of the transport header.
	csum, csumAt uint32
	csumPseudo   bool
}

const csumSCTP = 2 // NFT_PAYLOAD_CSUM_SCTP in linux/netfilter/nf_tables.h, from Linux 5.11 on

// locate returns where a field is in a table of the family. Offsets are those of the protocols' headers.
//
//nolint:funlen // a table
func locate(f nftables.Field, family nftables.Family) (location, error) {
	network := func(at uint32, size int) location {
		return location{size: size, expr: "payload", base: unix.NFT_PAYLOAD_NETWORK_HEADER, offset: at}
	}
	transport := func(at, csum, csumAt uint32) location {
		return location{size: 2, expr: "payload", base: unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset: at, csum: csum, csumAt: csumAt}
	}
	conntrack := func(key uint32, size int) location { return location{size: size, expr: "ct", key: key} }
	v6 := family == nftables.IPv6
	switch f {
	case nftables.SourceAddr, nftables.DestAddr:
		return address(f, v6), nil
	case nftables.OriginalDest:
		if v6 {
			return conntrack(unix.NFT_CT_DST_IP6, 16), nil
		}
		return conntrack(unix.NFT_CT_DST_IP, 4), nil
	case nftables.OriginalDestPort:
		return conntrack(unix.NFT_CT_PROTO_DST, 2), nil
	case nftables.OriginalSrcPort:
		return conntrack(unix.NFT_CT_PROTO_SRC, 2), nil
	case nftables.ReplySource:
		l := conntrack(unix.NFT_CT_SRC_IP, 4)
		if v6 {
			l = conntrack(unix.NFT_CT_SRC_IP6, 16)
		}
		l.dir = 1
		return l, nil
	case nftables.ReplySourcePort:
		return location{size: 2, expr: "ct", key: unix.NFT_CT_PROTO_SRC, dir: 1}, nil
	case nftables.Direction:
		return location{size: 1, expr: "ct", key: unix.NFT_CT_DIRECTION, dir: -1}, nil
	case nftables.SourcePort:
		return transport(0, unix.NFT_PAYLOAD_CSUM_NONE, 0), nil
	case nftables.DestPort:
		return transport(2, unix.NFT_PAYLOAD_CSUM_NONE, 0), nil
	case nftables.TCPSourcePort:
		return transport(0, unix.NFT_PAYLOAD_CSUM_INET, 16), nil
	case nftables.TCPDestPort:
		return transport(2, unix.NFT_PAYLOAD_CSUM_INET, 16), nil
	case nftables.UDPSourcePort:
		return transport(0, unix.NFT_PAYLOAD_CSUM_INET, 6), nil
	case nftables.UDPDestPort:
		return transport(2, unix.NFT_PAYLOAD_CSUM_INET, 6), nil
	case nftables.SCTPSourcePort:
		return transport(0, csumSCTP, 8), nil
	case nftables.UDPChecksum:
		return transport(6, unix.NFT_PAYLOAD_CSUM_NONE, 0), nil
	case nftables.Proto:
		return location{size: 1, expr: "meta", key: unix.NFT_META_L4PROTO}, nil
	case nftables.Mark:
		return location{size: 4, host: true, expr: "meta", key: unix.NFT_META_MARK}, nil
	case nftables.SourceType:
		return location{size: 4, host: true, expr: "fib", key: unix.NFTA_FIB_F_SADDR}, nil
	case nftables.DestType:
		return location{size: 4, host: true, expr: "fib", key: unix.NFTA_FIB_F_DADDR}, nil
	case nftables.ConnState:
		return location{size: 4, host: true, expr: "ct", key: unix.NFT_CT_STATE, dir: -1}, nil
	case nftables.TCPFlags:
		l := transport(13, unix.NFT_PAYLOAD_CSUM_NONE, 0)
		l.size = 1
		return l, nil
	case nftables.Priority:
		return location{size: 4, host: true, expr: "meta", key: unix.NFT_META_PRIORITY}, nil
	case nftables.ARPOperation:
		return network(6, 2), nil
	case nftables.ARPTarget:
		return network(24, 4), nil
	}
	return location{}, fmt.Errorf("unknown field %d", f)
}

// address returns where the source or destination address of an IP header is.
func address(f nftables.Field, v6 bool) location {
	l := location{size: 4, expr: "payload", base: unix.NFT_PAYLOAD_NETWORK_HEADER, offset: 12, csumPseudo: true}
	l.csum, l.csumAt = unix.NFT_PAYLOAD_CSUM_INET, 10
	if v6 {
		l.size, l.offset, l.csum, l.csumAt = 16, 8, unix.NFT_PAYLOAD_CSUM_NONE, 0
	}
	if f == nftables.DestAddr {
		l.offset += uint32(l.size) //nolint:gosec // 4 or 16
	}
	return l
}

// number returns a number as the field has it in a register; fields of numbers have at most four bytes.
func (l location) number(n uint32) []byte {
	if l.host {
		return binary.NativeEndian.AppendUint32(nil, n)
	}
	return binary.BigEndian.AppendUint32(nil, n)[4-l.size:]
}
