package iptables

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Family is an IP address family.
type Family uint8

// The two families. Every set and every ruleset belongs to one.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns inet or inet6, the names that ipset uses.
func (f Family) String() string {
	if f == IPv6 {
		return "inet6"
	}
	return "inet"
}

// SetType is a kernel set type.
type SetType string

// The set types in use. Source: linux/netfilter/ipset/ip_set_hash.h.
const (
	HashIPPort    SetType = "hash:ip,port"
	HashNet       SetType = "hash:net"
	HashIPPortNet SetType = "hash:ip,port,net"
)

// Set is a kernel set without its entries. It is comparable.
type Set struct {
	// Name has at most 31 characters (IPSET_MAXNAMELEN includes the final zero).
	Name   string
	Type   SetType
	Family Family
	// MaxElem is the most entries the set takes; the kernel's own default is 65536.
	MaxElem uint32
}

// Entry is one entry of a set. Which fields count depends on the set's type.
type Entry struct {
	// Prefix is the address (a full-length prefix) or, in hash:net, the network.
	Prefix netip.Prefix
	Proto  uint8 // IANA number; zero in hash:net
	Port   uint16
	// Net is the network of hash:ip,port,net, else invalid.
	Net netip.Prefix
}

// String prints the entry as ipset does, such as 10.96.0.10,tcp:80.
func (e Entry) String() string {
	parts := []string{e.Prefix.String()}
	if e.Prefix.IsSingleIP() {
		parts[0] = e.Prefix.Addr().String()
	}
	if e.Proto != 0 {
		parts = append(parts, protoName(e.Proto)+":"+strconv.Itoa(int(e.Port)))
	}
	if e.Net.IsValid() {
		parts = append(parts, e.Net.String())
	}
	return strings.Join(parts, ",")
}

func protoName(p uint8) string {
	switch p {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// Compare orders entries by prefix, port, protocol and network.
func (e Entry) Compare(o Entry) int {
	return cmp.Or(comparePrefix(e.Prefix, o.Prefix), cmp.Compare(e.Port, o.Port), cmp.Compare(e.Proto, o.Proto),
		comparePrefix(e.Net, o.Net))
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// SetState is the content of sets by name.
type SetState map[string]map[Entry]struct{}

// SetOp adds or deletes one entry.
type SetOp struct {
	Delete bool
	Set    string
	Entry  Entry
}

// String prints the operation as the ipset command would be written.
func (o SetOp) String() string {
	verb := "add"
	if o.Delete {
		verb = "del"
	}
	return fmt.Sprintf("%s %s %s", verb, o.Set, o.Entry)
}

// SetError is a failed operation on a set's entry.
type SetError struct {
	Op  SetOp
	Err error
}

// Error names the operation, the object and the cause.
func (e *SetError) Error() string { return fmt.Sprintf("ipset: %s: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *SetError) Unwrap() error { return e.Err }

// Sets is the sets of one network namespace.
type Sets interface {
	// Ensure creates those of the sets that are absent. A set that exists with the same type and family is kept
	// with its entries, and grown if it takes fewer entries than asked (without a moment in which an entry is
	// missing). One that exists with another type is an error. The others are created all the same; errors are joined.
	Ensure(ctx context.Context, sets []Set) error

	// Dump returns the entries of those of the named sets that exist.
	Dump(ctx context.Context, sets []Set) (SetState, error)

	// Count returns how many entries those of the named sets that exist have, by name. It does not read the entries.
	Count(ctx context.Context, sets []Set) (map[string]int, error)

	// Apply tries every operation, in order, whatever becomes of the others, and returns those that failed (nil if
	// none did). Adding the present and deleting the absent succeed; any operation on an absent set fails except
	// deleting. When ctx ends, the operations not yet tried fail with its error.
	Apply(ctx context.Context, ops []SetOp) []*SetError

	// Destroy removes the sets; absent ones are fine. A set that a rule still uses is an error and stays.
	Destroy(ctx context.Context, sets []Set) error
}
