package nftables

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
)

// Key is an element's key. Which fields count depends on the set's [KeyType].
type Key struct {
	Addr  netip.Addr // unmapped, without zone
	Proto uint8      // IANA number
	Port  uint16
	Mark  uint32
}

// String prints the key as the nft command does, such as 10.96.0.10 . tcp . 80.
func (k Key) String() string {
	switch {
	case !k.Addr.IsValid():
		return fmt.Sprintf("%#x", k.Mark)
	case k.Proto == 0:
		return k.Addr.String()
	}
	return fmt.Sprintf("%s . %s . %d", k.Addr, protoName(k.Proto), k.Port)
}

func protoName(p uint8) string {
	switch p {
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoSCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// Compare orders keys by address, port, protocol and mark.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Proto, o.Proto), cmp.Compare(k.Mark, o.Mark))
}

// State is the elements of sets. The value is the mark that a map gives the key, zero in a set.
type State map[SetID]map[Key]uint32

// Op adds or deletes one element.
type Op struct {
	Delete bool
	Set    SetID
	Key    Key
	// Mark is what a map gives the key; zero in a set. It does not matter when deleting.
	Mark uint32
}

// String prints the operation nearly as the nft command would be written.
func (o Op) String() string {
	switch {
	case o.Delete:
		return fmt.Sprintf("delete element %s { %s }", o.Set, o.Key)
	case o.Mark != 0:
		return fmt.Sprintf("add element %s { %s : %#x }", o.Set, o.Key, o.Mark)
	}
	return fmt.Sprintf("add element %s { %s }", o.Set, o.Key)
}

// OpError is a failed operation.
type OpError struct {
	Op  Op
	Err error
}

// Error names the operation, the object and the cause.
func (e *OpError) Error() string { return fmt.Sprintf("nftables: %s: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Type returns the type of set that the key's fields are made for.
func (k Key) Type() KeyType {
	switch {
	case !k.Addr.IsValid():
		return PacketMark
	case k.Proto == 0:
		return Addr
	}
	return AddrProtoPort
}

// Check reports, as an ErrElement, why no set of the operation's table can hold its key. The kernel knows only the
// length of a key, and would take other bytes of the same length.
func (o Op) Check() error {
	k := o.Key
	switch k.Type() {
	case PacketMark:
		if k.Proto != 0 || k.Port != 0 {
			return fmt.Errorf("%w: a mark with a protocol or port", ErrElement)
		}
		return nil
	case Addr:
		if k.Addr.Is4() != (o.Set.Family != IPv6) || k.Addr.Is4In6() || k.Addr.Zone() != "" || k.Port != 0 || k.Mark != 0 {
			return fmt.Errorf("%w: %s is not a lone address for family %s", ErrElement, k, o.Set.Family)
		}
		return nil
	case AddrProtoPort, AddrPort, AddrPorts:
	}
	if k.Addr.Is4() != (o.Set.Family == IPv4) || k.Addr.Is4In6() || k.Addr.Zone() != "" || k.Mark != 0 {
		return fmt.Errorf("%w: %s in a table of family %s", ErrElement, k, o.Set.Family)
	}
	return nil
}
