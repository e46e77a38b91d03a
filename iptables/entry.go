package iptables

import (
	"errors"
	"fmt"
	"net/netip"
)

// What can be wrong with an operation on a set. Both the kernel edge and the fake return errors that errors.Is
// recognises as these.
var (
	// ErrNoSet is the answer to adding to a set that does not exist.
	ErrNoSet = errors.New("no such set")
	// ErrSetFull is the answer to adding to a set that holds MaxElem entries.
	ErrSetFull = errors.New("the set is full")
	// ErrSetInUse is the answer to destroying a set that a rule refers to.
	ErrSetInUse = errors.New("the set is in use")
	// ErrSetType is the answer to asking for a set that exists with another type or family.
	ErrSetType = errors.New("the set exists with another type or family")
	// ErrEntry is the answer to an entry that its set cannot hold.
	ErrEntry = errors.New("the set cannot hold the entry")
)

// The protocols that have ports, as the kernel's sets know them. Source: ip_set_proto_with_ports.
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// Type returns the type of set that the entry's fields are made for.
func (e Entry) Type() SetType {
	switch {
	case e.Net.IsValid():
		return HashIPPortNet
	case e.Proto != 0:
		return HashIPPort
	}
	return HashNet
}

// Family returns the family of the entry's address.
func (e Entry) Family() Family {
	if e.Prefix.Addr().Is4() {
		return IPv4
	}
	return IPv6
}

// Check reports, as an ErrEntry, why no set can hold the entry as it is written. The kernel would take some of
// these and store something else (10.0.0.1/8 becomes 10.0.0.0/8, a port of protocol 47 becomes 0): what is
// dumped would then differ from what was added for ever, so they are refused before they are sent.
func (e Entry) Check() error {
	if err := checkPrefix(e.Prefix); err != nil {
		return err
	}
	if e.Type() == HashNet {
		if e.Port != 0 {
			return fmt.Errorf("%w: port %d without a protocol", ErrEntry, e.Port)
		}
		return nil
	}
	switch e.Proto {
	case protoTCP, protoUDP, protoSCTP:
	default:
		return fmt.Errorf("%w: protocol %d has no ports", ErrEntry, e.Proto)
	}
	if !e.Prefix.IsSingleIP() {
		return fmt.Errorf("%w: %s is not a single address", ErrEntry, e.Prefix)
	}
	if e.Type() == HashIPPort {
		return nil
	}
	if e.Net.Addr().Is4() != e.Prefix.Addr().Is4() {
		return fmt.Errorf("%w: %s and %s are of two families", ErrEntry, e.Prefix, e.Net)
	}
	return checkPrefix(e.Net)
}

func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("%w: it has no valid address", ErrEntry)
	case p.Addr().Is4In6():
		return fmt.Errorf("%w: %s is an IPv4 address in IPv6 form", ErrEntry, p)
	case p.Masked() != p:
		return fmt.Errorf("%w: %s has host bits, the network is %s", ErrEntry, p, p.Masked())
	case p.Bits() == 0:
		halves := Storable(p)
		return fmt.Errorf("%w: prefix length 0 does not exist in sets, use %s and %s", ErrEntry, halves[0], halves[1])
	}
	return nil
}

// Storable returns the prefixes by which a set can hold the network p: p itself without host bits, or its two
// halves if its length is 0, which the kernel refuses (IPSET_ERR_INVALID_CIDR).
//
// The edges do not split in silence: a set that holds both halves would then read back as either the whole or
// the halves, and the diff of one of the two would never be empty.
func Storable(p netip.Prefix) []netip.Prefix {
	p = p.Masked()
	if !p.IsValid() || p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	upper := p.Addr().AsSlice()
	upper[0] = 0x80
	addr, _ := netip.AddrFromSlice(upper)
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), 1), netip.PrefixFrom(addr, 1)}
}
