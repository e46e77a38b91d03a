package nftables

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The protocols that have ports here. Source: IANA protocol numbers.
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// Field is something of a packet or its connection that a rule can look at, and in part change.
type Field uint8

// The fields in use, with their names in the nft command.
const (
	SourceAddr       Field = iota + 1 // ip saddr
	DestAddr                          // ip daddr
	Proto                             // meta l4proto
	SourcePort                        // th sport; when written, without a change of the checksum
	DestPort                          // th dport; likewise
	TCPSourcePort                     // tcp sport; when written, the checksum follows, as in those below
	TCPDestPort                       // tcp dport
	UDPSourcePort                     // udp sport
	UDPDestPort                       // udp dport
	SCTPSourcePort                    // sctp sport
	UDPChecksum                       // udp checksum
	Direction                         // ct direction: 0 original, 1 reply
	OriginalDest                      // ct original ip daddr
	OriginalDestPort                  // ct original proto-dst
	OriginalSrcPort                   // ct original proto-src
	ReplySource                       // ct reply ip saddr: who answers
	ReplySourcePort                   // ct reply proto-src
	ConnState                         // ct state, one of the State values
	TCPFlags                          // tcp flags
	Mark                              // meta mark
	SourceType                        // fib saddr type: 2 is local (RTN_LOCAL)
	DestType                          // fib daddr type
	ARPOperation                      // arp operation: 1 is a request
	ARPTarget                         // arp daddr ip
	Priority                          // meta priority: the packet's class for queueing, 0 when it has just arrived
)

// Name returns the field as the nft command writes it in a table of the family.
func (f Field) Name(family Family) string {
	names := [...]string{
		SourceAddr: "IP saddr", DestAddr: "IP daddr", Proto: "meta l4proto", SourcePort: "th sport", DestPort: "th dport",
		TCPSourcePort: "tcp sport", TCPDestPort: "tcp dport", UDPSourcePort: "udp sport", UDPDestPort: "udp dport",
		SCTPSourcePort: "sctp sport", UDPChecksum: "udp checksum", Direction: "ct direction",
		OriginalDest: "ct original IP daddr", OriginalDestPort: "ct original proto-dst", OriginalSrcPort: "ct original proto-src",
		ReplySource: "ct reply IP saddr", ReplySourcePort: "ct reply proto-src", ConnState: "ct state", TCPFlags: "tcp flags",
		Mark: "meta mark", SourceType: "fib saddr type", DestType: "fib daddr type", ARPOperation: "arp operation", ARPTarget: "arp daddr ip",
		Priority: "meta priority",
	}
	if int(f) >= len(names) {
		return fmt.Sprintf("field %d", f)
	}
	return strings.Replace(names[f], "IP", family.String(), 1)
}

// Rule is matches and what to do if all of them hold, in order.
type Rule []Statement

// Statement is one part of a rule: [Is], [Within], [FromInterface], [In], [MarkBy], [SetMark], [Copy], [Store],
// [Learn], [Forget], [Recall], [MarkHas], [MarkWithout], [SourceNAT], [Accept], [Drop] or [Reject].
type Statement interface {
	text(f Family) string
}

// Is matches a field that has, or with Not has not, a value.
type Is struct {
	Field Field
	Not   bool
	Value uint32
}

// Within matches an address in a network.
type Within struct {
	Field  Field
	Prefix netip.Prefix
}

// FromInterface matches packets that arrived on an interface, or with Not did not. A name with a final + is that of all
// interfaces whose names begin so, as iptables writes it.
type FromInterface struct {
	Name string
	Not  bool
}

// In matches if the fields together are, or with Not are not, in a set of the table.
type In struct {
	Fields []Field
	Not    bool
	Set    string
}

// MarkBy gives the packet the mark that a map of the table has for the fields. Without one the rule ends there.
type MarkBy struct {
	Fields []Field
	Map    string
}

// SetMark gives the packet a mark.
type SetMark struct{ Mark uint32 }

// Copy writes a field of the packet or its connection into another one of the packet, of the same size.
type Copy struct{ To, From Field }

// Store writes a number into a field of the packet.
type Store struct {
	To    Field
	Value uint32
}

// Learn puts the fields of By with those of Value into a map that learns, or without Value into a set. If a map has another
// value for By already, that stays, for as long as a new one would.
type Learn struct {
	Map       string
	By, Value []Field
}

// Forget takes the fields of By out of a set that learns. It matches, also if they were not in it.
type Forget struct {
	Set string
	By  []Field
}

// Recall writes what a map has for the fields of By into the fields of To, in order. Without it the rule ends there. The
// first of To is copied to Keep before it is written, unless that is zero.
type Recall struct {
	Map    string
	By, To []Field
	Keep   Field
}

// MarkHas matches packets whose mark has all of these bits.
type MarkHas struct{ Bits uint32 }

// MarkWithout takes these bits from the packet's mark.
type MarkWithout struct{ Bits uint32 }

// SourceNAT gives a connection another source in chains for translation: an address, or the packet's own if it is the
// zero Addr, and a port at random. It ends the packet's way through such chains.
type SourceNAT struct{ To netip.Addr }

// Accept ends the packet's way through the chain.
type Accept struct{}

// Drop ends the packet.
type Drop struct{}

// Reject ends the packet and tells its sender: with a TCP reset, else with an ICMP error that calls the port unreachable.
type Reject struct{ Reset bool }

func (s Is) text(f Family) string {
	not := ""
	if s.Not {
		not = "!= "
	}
	return fmt.Sprintf("%s %s%s", s.Field.Name(f), not, s.valueName())
}

func (s Is) valueName() string {
	switch {
	case s.Field == Proto:
		return protoName(uint8(s.Value))
	case s.Field == Direction && s.Value == 0:
		return "original"
	case s.Field == Direction:
		return "reply"
	case (s.Field == SourceType || s.Field == DestType) && s.Value == typeLocal:
		return "local"
	case s.Field == ARPOperation && s.Value == 1:
		return "request"
	case s.Field == ConnState && s.Value == StateNew:
		return "== new" // and nothing else: nft's "new" alone is a test of one bit
	case s.Field == TCPFlags && s.Value == FlagSYN:
		return "syn"
	case s.Field == TCPFlags:
		return fmt.Sprintf("%#x", s.Value)
	case s.Field == ConnState && s.Value == StateNone:
		return "== invalid"
	case s.Field == ConnState && s.Value == StateUntracked:
		return "== untracked"
	case s.Field == Priority && s.Value == 0:
		return "none"
	}
	return strconv.FormatUint(uint64(s.Value), 10)
}

// States of a packet's connection: a packet without any, one of a connection that begins, and one that connection tracking
// is not to see (NF_CT_STATE_INVALID_BIT, NF_CT_STATE_BIT and NF_CT_STATE_UNTRACKED_BIT in
// linux/netfilter/nf_conntrack_common.h).
const (
	StateNone      = 1 << 0
	StateNew       = 1 << 3
	StateUntracked = 1 << 6
)

// Flags of TCP (RFC 9293 and RFC 3168).
const (
	FlagSYN = 1 << 1
	flagECE = 1 << 6
	flagCWR = 1 << 7
)

// NoSYN matches TCP segments that open no connection, with congestion notification or without.
func NoSYN() []Statement {
	return []Statement{
		Is{Field: TCPFlags, Not: true, Value: FlagSYN},
		Is{Field: TCPFlags, Not: true, Value: FlagSYN | flagECE | flagCWR},
	}
}

// typeLocal is RTN_LOCAL of linux/rtnetlink.h.
const typeLocal = 2

// FromLocal matches packets whose source is an address of this node.
func FromLocal() Is { return Is{Field: SourceType, Value: typeLocal} }

// ToLocal matches packets whose destination is an address of this node.
func ToLocal() Is { return Is{Field: DestType, Value: typeLocal} }

// NoConnection matches packets that connection tracking has not seen, or can do nothing with.
func NoConnection() Is { return Is{Field: ConnState, Value: StateNone} }

// Untracked matches packets that were taken from connection tracking.
func Untracked() Is { return Is{Field: ConnState, Value: StateUntracked} }

func (s Within) text(f Family) string { return s.Field.Name(f) + " " + s.Prefix.String() }

func (s FromInterface) text(Family) string {
	not := ""
	if s.Not {
		not = "!= "
	}
	return fmt.Sprintf("iifname %s%q", not, strings.Replace(s.Name, "+", "*", 1))
}

func (s In) text(f Family) string {
	not := ""
	if s.Not {
		not = "!= "
	}
	return fmt.Sprintf("%s %s@%s", tuple(s.Fields, f), not, s.Set)
}

func (s MarkBy) text(f Family) string {
	return fmt.Sprintf("meta mark set %s map @%s", tuple(s.Fields, f), s.Map)
}

func (s SetMark) text(Family) string { return fmt.Sprintf("meta mark set 0x%08x", s.Mark) }
func (s Copy) text(f Family) string  { return fmt.Sprintf("%s set %s", s.To.Name(f), s.From.Name(f)) }

func (s Store) text(f Family) string {
	return s.To.Name(f) + " set " + Is{Field: s.To, Value: s.Value}.valueName()
}
func (s Accept) text(Family) string { return "accept" }
func (s Drop) text(Family) string   { return "drop" }

func (s Learn) text(f Family) string {
	if len(s.Value) == 0 {
		return fmt.Sprintf("update @%s { %s }", s.Map, tuple(s.By, f))
	}
	return fmt.Sprintf("update @%s { %s : %s }", s.Map, tuple(s.By, f), tuple(s.Value, f))
}

func (s Forget) text(f Family) string {
	return fmt.Sprintf("delete @%s { %s }", s.Set, tuple(s.By, f))
}

func (s MarkHas) text(Family) string {
	return fmt.Sprintf("meta mark & 0x%08x == 0x%08x", s.Bits, s.Bits)
}

func (s MarkWithout) text(Family) string {
	return fmt.Sprintf("meta mark set meta mark & 0x%08x", ^s.Bits)
}

func (s SourceNAT) text(f Family) string {
	to := SourceAddr.Name(f)
	if s.To.IsValid() {
		to = s.To.String()
	}
	return fmt.Sprintf("snat to %s fully-random", to)
}

func (s Recall) text(f Family) string {
	keep := ""
	if s.Keep != 0 {
		keep = Copy{To: s.Keep, From: s.To[0]}.text(f) + " "
	}
	return fmt.Sprintf("%s%s set %s map @%s", keep, tuple(s.To, f), tuple(s.By, f), s.Map)
}

func (s Reject) text(Family) string {
	if s.Reset {
		return "reject with tcp reset"
	}
	return "reject"
}

func tuple(fields []Field, f Family) string {
	names := make([]string, len(fields))
	for i, field := range fields {
		names[i] = field.Name(f)
	}
	return strings.Join(names, " . ")
}

// Text prints the rule as the nft command would list it in a table of the family.
func (r Rule) Text(f Family) string {
	parts := make([]string, len(r))
	for i, s := range r {
		parts[i] = s.text(f)
	}
	return strings.Join(parts, " ")
}
