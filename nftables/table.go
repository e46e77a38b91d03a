package nftables

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Family is a table's family, by its number in the kernel (NFPROTO_* in linux/netfilter.h).
type Family uint8

// The families in use.
const (
	IPv4 Family = 2
	ARP  Family = 3
	IPv6 Family = 10
)

// String returns the name that the nft command uses.
func (f Family) String() string {
	switch f {
	case IPv4:
		return "ip"
	case ARP:
		return "arp"
	case IPv6:
		return "ip6"
	}
	return fmt.Sprintf("family %d", uint8(f))
}

// Hook is where a chain is attached, by its number in the kernel.
type Hook uint8

// The hooks in use. Sources: enum nf_inet_hooks in linux/netfilter.h, linux/netfilter_arp.h.
const (
	ARPInput   Hook = 0
	Prerouting Hook = 0
	Input      Hook = 1
	Forward    Hook = 2
	Output     Hook = 3

	Postrouting Hook = 4
)

// Table is a table that is entirely ours.
type Table struct {
	Family Family
	Name   string
	Sets   []Set
	Chains []Chain
}

// Set is a set or map, without its elements.
type Set struct {
	Name string
	Key  KeyType
	// Value makes it a map, to what it says; zero for a set. Only maps to packet marks have elements that are given.
	Value KeyType
	// Learned is how long what rules put in stays after it was put in last, in whole milliseconds; zero for a set whose
	// elements are given and stay. Into a set of AddrProtoPort that learns, elements can be put by Apply too; they stay as
	// long, or until a rule takes them out. The kernel holds at most 65,535 learned elements; more are not learned.
	Learned time.Duration
}

// KeyType is what a set's keys are made of.
type KeyType uint8

// The key types in use.
const (
	// AddrProtoPort is address . protocol . port: a frontend.
	AddrProtoPort KeyType = iota + 1
	// Addr is an address: of IPv6 in a table of that family, else of IPv4.
	Addr
	// PacketMark is a packet mark.
	PacketMark
	// AddrPort is address . port.
	AddrPort
	// AddrPorts is address . port . address . port: both ends of a flow. Only sets that learn have it.
	AddrPorts
)

// Chain is a base chain: it is attached to a hook, and accepts what its rules say nothing about.
type Chain struct {
	Name     string
	Hook     Hook
	Priority int32
	// NAT makes it one for translation, which sees only the first packet of a connection.
	NAT   bool
	Rules []Rule
	// IfThere is for a chain of which it is not known yet whether it is needed: it is not made, and not deleted either.
	IfThere bool
}

// SetID names a set in a network namespace.
type SetID struct {
	Family Family
	Table  string
	Name   string
}

// String prints the name as the nft command takes it.
func (s SetID) String() string { return fmt.Sprintf("%s %s %s", s.Family, s.Table, s.Name) }

// ID returns the name of one of the table's sets.
func (t Table) ID(set string) SetID { return SetID{t.Family, t.Name, set} }

// What can be wrong with an operation on an element, for errors.Is.
var (
	// ErrNoSet is the answer to adding to a set that does not exist.
	ErrNoSet = errors.New("no such set")
	// ErrElement is the answer to an element that its set cannot hold.
	ErrElement = errors.New("the set cannot hold the element")
)

// Tables is the tables of one network namespace.
type Tables interface {
	// Ensure makes the kernel hold the tables, each by one transaction, and returns one line for each difference that
	// it found and repaired. What is as wanted is left as it is, elements included; a set of another type is made anew,
	// empty, and other chains in the tables are deleted. Tables of others are not touched. If one table fails, the others are
	// still tried; errors are joined.
	Ensure(ctx context.Context, want []Table) (repaired []string, err error)

	// Dump returns the elements of those of the tables' sets that exist, except of sets that learn.
	Dump(ctx context.Context, of []Table) (State, error)

	// Holds reports of each key whether a set holds it now, one that learns too; a set that does not exist holds none. A
	// key that could not be looked for is missing in the answer, and the error says why. It costs one request a key, of
	// which many share a system call, whatever there is.
	Holds(ctx context.Context, set SetID, keys ...Key) (map[Key]bool, error)

	// Generation returns a number that every change of the namespace's nf_tables changes, in any table and by any
	// program: while it stays, so does all that Dump returned. It costs one request, whatever there is.
	Generation(ctx context.Context) (uint32, error)

	// Apply tries every operation, in order, whatever becomes of the others, and returns those that failed (nil if
	// none did). Adding the present and deleting the absent succeed; adding to a map a key that has another mark
	// replaces the mark, with no moment in between; deleting goes by the key alone. Any operation on an absent set
	// fails except deleting. When ctx ends, the operations not yet tried fail with its error.
	Apply(ctx context.Context, ops []Op) []*OpError

	// Remove deletes the tables with all that is in them; absent ones are fine.
	Remove(ctx context.Context, tables []Table) error
}
