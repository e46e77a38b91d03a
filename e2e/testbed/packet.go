package testbed

import (
	"encoding/binary"
	"net/netip"
)

// Packet is one IP packet that passed an interface.
type Packet struct {
	Src, Dst netip.AddrPort // port 0 where the protocol has none
	// Proto is the IP protocol number; for IPv6 the first next header, which is all that a bed's hosts send.
	Proto uint8
	// Outgoing tells packets that the host sent by the interface from those that it received there.
	Outgoing bool
	// Reset is set for a TCP segment that ends its connection.
	Reset bool
	// Opens is set for a TCP segment that asks for a connection: a SYN, but not the one that answers it.
	Opens bool
}

// IP protocol numbers with ports at the same place. Source: IANA protocol numbers.
const (
	numTCP  = 6
	numUDP  = 17
	numSCTP = 132
)

// parsePacket reads an IP packet, without a link-layer header; ok is false for anything else.
func parsePacket(b []byte) (p Packet, ok bool) {
	var src, dst netip.Addr
	var body []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header := min(int(b[0]&0xf)*4, len(b))
		p.Proto, body = b[9], b[header:]
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Proto, body = b[6], b[40:]
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return Packet{}, false
	}
	var sport, dport uint16
	if len(body) >= 4 && (p.Proto == numTCP || p.Proto == numUDP || p.Proto == numSCTP) {
		sport, dport = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	}
	const flags, syn, rst, ack = 13, 1 << 1, 1 << 2, 1 << 4 // RFC 9293, section 3.1
	if p.Proto == numTCP && len(body) > flags {
		p.Reset = body[flags]&rst != 0
		p.Opens = body[flags]&(syn|ack) == syn
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return p, true
}
