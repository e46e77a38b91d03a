package ipsetnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/iptables"
)

// appendEntry appends an entry that passed its Check. The line is how the kernel names it if it fails; 0 leaves
// it out.
func appendEntry(b []byte, e iptables.Entry, line uint32) []byte {
	b, start := nlattr.Open(b, attrData)
	b = appendAddr(b, attrIP, e.Prefix.Addr())
	typ := e.Type()
	if typ == iptables.HashNet {
		b = nlattr.Append(b, attrCIDR, uint8(e.Prefix.Bits()))
	} else {
		b = appendNet16(b, attrPort, e.Port)
		b = nlattr.Append(b, attrProto, e.Proto)
	}
	if typ == iptables.HashIPPortNet {
		b = appendAddr(b, attrIP2, e.Net.Addr())
		b = nlattr.Append(b, attrCIDR2, uint8(e.Net.Bits()))
	}
	if line != 0 {
		b = appendHost32(b, attrLineno, line)
	}
	return nlattr.Close(b, start)
}

// wireEntry is an entry as its attributes come, in any order.
type wireEntry struct {
	ip, ip2     netip.Addr
	cidr, cidr2 uint8 // 0 if absent, which means all bits
	proto       uint8
	port        uint16
}

func (w *wireEntry) set(typ uint16, v []byte) (err error) {
	switch typ {
	case attrIP:
		w.ip, err = parseAddr(v)
	case attrIP2:
		w.ip2, err = parseAddr(v)
	case attrCIDR:
		w.cidr, err = parseU8(v)
	case attrCIDR2:
		w.cidr2, err = parseU8(v)
	case attrProto:
		w.proto, err = parseU8(v)
	case attrPort:
		w.port, err = parseNet16(v)
	} // anything else is an extension, such as a counter, that someone else created the set with
	if err != nil {
		return fmt.Errorf("attribute %d: %w", typ, err)
	}
	return nil
}

// parseEntry reads the content of an attrData.
func parseEntry(b []byte) (iptables.Entry, error) {
	var w wireEntry
	if err := nlattr.Each(b, w.set); err != nil {
		return iptables.Entry{}, fmt.Errorf("parse entry: %w", err)
	}
	if !w.ip.IsValid() {
		return iptables.Entry{}, errors.New("parse entry: no address")
	}
	e := iptables.Entry{Prefix: prefix(w.ip, w.cidr), Proto: w.proto, Port: w.port}
	if w.ip2.IsValid() {
		e.Net = prefix(w.ip2, w.cidr2)
		if !e.Net.IsValid() {
			return iptables.Entry{}, fmt.Errorf("parse entry: %s/%d", w.ip2, w.cidr2)
		}
	}
	if !e.Prefix.IsValid() {
		return iptables.Entry{}, fmt.Errorf("parse entry: %s/%d", w.ip, w.cidr)
	}
	return e, nil
}

func prefix(a netip.Addr, bits uint8) netip.Prefix {
	if bits == 0 {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.PrefixFrom(a, int(bits))
}

// setMessage is one message of a listing: a set's head, and some of its entries.
type setMessage struct {
	set     iptables.Set
	count   uint32 // of entries, in a message about the set itself
	entries []iptables.Entry
}

// parseSet reads the attributes of one message of a listing.
func parseSet(b []byte) (m setMessage, err error) {
	err = nlattr.Each(b, func(typ uint16, v []byte) (err error) {
		switch typ {
		case attrSetName:
			m.set.Name, err = parseString(v)
		case attrTypeName:
			var s string
			s, err = parseString(v)
			m.set.Type = iptables.SetType(s)
		case attrFamily:
			m.set.Family, err = parseFamily(v)
		case attrData:
			m.set.MaxElem, err = parseNumber(v, attrMaxElem)
			if err == nil {
				m.count, err = parseNumber(v, attrElements)
			}
		case attrADT:
			m.entries, err = parseEntries(v)
		}
		return err
	})
	if err != nil {
		return setMessage{}, fmt.Errorf("parse set %q: %w", m.set.Name, err)
	}
	return m, nil
}

// parseFamily returns 0 for a family that is neither IPv4 nor IPv6, as some set types have.
func parseFamily(v []byte) (iptables.Family, error) {
	n, err := parseU8(v)
	switch n {
	case nfprotoIPv4:
		return iptables.IPv4, err
	case nfprotoIPv6:
		return iptables.IPv6, err
	}
	return 0, err
}

// parseNumber returns one of the numbers that a set has, 0 if it is not among them.
func parseNumber(b []byte, attr uint16) (n uint32, err error) {
	err = nlattr.Each(b, func(typ uint16, v []byte) (err error) {
		if typ == attr {
			n, err = parseNet32(v)
		}
		return err
	})
	return n, err
}

func parseEntries(b []byte) (out []iptables.Entry, err error) {
	err = nlattr.Each(b, func(_ uint16, v []byte) error {
		e, err := parseEntry(v)
		out = append(out, e)
		return err
	})
	return out, err
}

// failedLine returns the line of the entry that made a batch fail, out of the attributes of our own request,
// which the kernel sends back with the line written into it; 0 if it does not say.
func failedLine(b []byte) (line uint32) {
	_ = nlattr.Each(b, func(typ uint16, v []byte) error { // half a message just says nothing
		if typ == attrLineno && len(v) == 4 {
			line = binary.NativeEndian.Uint32(v)
		}
		return nil
	})
	return line
}
