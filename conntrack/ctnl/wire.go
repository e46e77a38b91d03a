// Package ctnl is the connection tracking table of the kernel, over netlink.
package ctnl

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/lb"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h that the netlink package does not name, and the bits that say
// which fields of the tuple a listing is limited to (enum ctattr_filter; CTA_FILTER_F_* in nf_conntrack_netlink.c).
const (
	ctaFilter          = 25
	ctaStatusMask      = 26
	ctaFilterOrigFlags = 1

	filterIPSrc      = 1 << 0
	filterIPDst      = 1 << 1
	filterProtoNum   = 1 << 3
	filterProtoSport = 1 << 4
	filterProtoDport = 1 << 5
)

// seenReply is set when a packet has come back (IPS_SEEN_REPLY in linux/netfilter/nf_conntrack_common.h).
const seenReply = 1 << 1

const (
	nested    = 0x8000
	typeMask  = 0x3fff // without the flags for nested and for network byte order
	headerLen = 4
)

// entry is one message of a listing: the flow, and what names it in a request to delete it.
type entry struct {
	flow conntrack.Flow
	name []byte // the attributes CTA_TUPLE_ORIG, CTA_ZONE and CTA_ID as the kernel sent them
}

// parseEntry reads the attributes of one entry; ok is false for what is not ours to judge.
func parseEntry(attrs []byte) (e entry, ok bool) {
	var orig, reply tuple
	var status uint32
	eachAttr(attrs, func(kind uint16, value, whole []byte) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			orig = parseTuple(value)
			e.name = append(e.name, whole...)
		case nl.CTA_TUPLE_REPLY:
			reply = parseTuple(value)
		case nl.CTA_STATUS:
			if len(value) == 4 {
				status = binary.BigEndian.Uint32(value)
			}
		case nl.CTA_ZONE, nl.CTA_ID:
			e.name = append(e.name, whole...)
		}
	})
	e.flow = conntrack.Flow{Proto: orig.proto, Client: orig.src(), Dst: orig.dst(), Server: reply.src(), Unanswered: status&seenReply == 0}
	return e, e.flow.Client.IsValid() && e.flow.Dst.IsValid() && e.flow.Server.IsValid()
}

// tuple is one direction of an entry.
type tuple struct {
	from, to     netip.Addr
	proto        lb.Proto
	sport, dport uint16
}

func (t tuple) src() netip.AddrPort { return netip.AddrPortFrom(t.from, t.sport) }
func (t tuple) dst() netip.AddrPort { return netip.AddrPortFrom(t.to, t.dport) }

func parseTuple(b []byte) tuple {
	var t tuple
	eachAttr(b, func(kind uint16, value, _ []byte) {
		switch kind {
		case nl.CTA_TUPLE_IP:
			eachAttr(value, t.ip)
		case nl.CTA_TUPLE_PROTO:
			eachAttr(value, t.ports)
		}
	})
	return t
}

func (t *tuple) ip(kind uint16, value, _ []byte) {
	addr, _ := netip.AddrFromSlice(value)
	switch kind {
	case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
		t.from = addr
	case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
		t.to = addr
	}
}

func (t *tuple) ports(kind uint16, value, _ []byte) {
	switch {
	case kind == nl.CTA_PROTO_NUM && len(value) >= 1:
		t.proto = lb.Proto(value[0])
	case kind == nl.CTA_PROTO_SRC_PORT && len(value) >= 2:
		t.sport = binary.BigEndian.Uint16(value)
	case kind == nl.CTA_PROTO_DST_PORT && len(value) >= 2:
		t.dport = binary.BigEndian.Uint16(value)
	}
}

// eachAttr calls f for each attribute, with its value and with all of it, and stops at one that is cut short.
func eachAttr(b []byte, f func(kind uint16, value, whole []byte)) {
	for len(b) >= headerLen {
		n := int(binary.NativeEndian.Uint16(b))
		if n < headerLen || n > len(b) {
			return
		}
		end := min((n+3)&^3, len(b))
		f(binary.NativeEndian.Uint16(b[2:])&typeMask, b[headerLen:n], b[:end])
		b = b[end:]
	}
}

// appendAttr appends an attribute, padded.
func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(headerLen+len(value))) //nolint:gosec // our values are short
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// wanted is what one walk is for: the entries of a protocol, of one end if it is valid, that a cleanup calls stale.
type wanted struct {
	c     conntrack.Cleanup
	proto lb.Proto
	// at is where the first packet goes to or, with source, where it comes from.
	at     netip.AddrPort
	source bool
	// unanswered limits it to entries for which nothing has come back.
	unanswered bool
}

// filter returns the attributes that limit a listing to what is wanted. A kernel that does not know them lists more: those
// before 5.8, and about the status those before 5.18. An IPv6 address is not asked for: Linux 6.18 compares it the wrong
// way round, and lists all entries but the wanted ones.
func filter(w wanted) []byte {
	ipFlag, portFlag, ipKind, portKind := uint32(filterIPDst), uint32(filterProtoDport), uint16(nl.CTA_IP_V4_DST), uint16(nl.CTA_PROTO_DST_PORT)
	if w.source {
		ipFlag, portFlag, ipKind, portKind = filterIPSrc, filterProtoSport, nl.CTA_IP_V4_SRC, nl.CTA_PROTO_SRC_PORT
	}
	flags := uint32(filterProtoNum)
	proto := appendAttr(nil, nl.CTA_PROTO_NUM, []byte{byte(w.proto)})
	var t []byte
	if w.at.Addr().Is4() {
		flags |= ipFlag
		t = appendAttr(t, nl.CTA_TUPLE_IP|nested, appendAttr(nil, ipKind, w.at.Addr().AsSlice()))
	}
	if w.at.IsValid() {
		flags |= portFlag
		proto = appendAttr(proto, portKind, binary.BigEndian.AppendUint16(nil, w.at.Port()))
	}
	t = appendAttr(t, nl.CTA_TUPLE_PROTO|nested, proto)
	out := appendAttr(nil, nl.CTA_TUPLE_ORIG|nested, t)
	out = appendAttr(out, ctaFilter|nested, appendAttr(nil, ctaFilterOrigFlags, binary.NativeEndian.AppendUint32(nil, flags)))
	if w.unanswered {
		out = appendAttr(out, nl.CTA_STATUS, binary.BigEndian.AppendUint32(nil, 0))
		out = appendAttr(out, ctaStatusMask, binary.BigEndian.AppendUint32(nil, seenReply))
	}
	return out
}
