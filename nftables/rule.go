package nftables

import (
	"fmt"
	"net/netip"
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
	ReplySource                       // ct reply ip saddr
	ConnState                         // ct state, one of the State values
	TCPFlags                          // tcp flags
	Mark                              // meta mark
	SourceType                        // fib saddr type: 2 is local (RTN_LOCAL)
	DestType                          // fib daddr type
	ARPOperation                      // arp operation: 1 is a request
	ARPTarget                         // arp daddr ip
)

// Name returns the field as the nft command writes it in a table of the family.
func (f Field) Name(family Family) string {
	names := [...]string{
		SourceAddr: "IP saddr", DestAddr: "IP daddr", Proto: "meta l4proto", SourcePort: "th sport", DestPort: "th dport",
		TCPSourcePort: "tcp sport", TCPDestPort: "tcp dport", UDPSourcePort: "udp sport", UDPDestPort: "udp dport",
		SCTPSourcePort: "sctp sport", UDPChecksum: "udp checksum", Direction: "ct direction",
		OriginalDest: "ct original IP daddr", OriginalDestPort: "ct original proto-dst", OriginalSrcPort: "ct original proto-src",
		ReplySource: "ct reply IP saddr", ConnState: "ct state", TCPFlags: "tcp flags",
		Mark: "meta mark", SourceType: "fib saddr type", DestType: "fib daddr type", ARPOperation: "arp operation", ARPTarget: "arp daddr ip",
	}
	if int(f) >= len(names) {
		return fmt.Sprintf("field %d", f)
	}
	return strings.Replace(names[f], "IP", family.String(), 1)
}

// Rule is matches and what to do if all of them hold, in order.
type Rule []Statement

// Statement is one part of a rule: [Is], [Within], [FromInterface], [In], [MarkBy], [SetMark], [Copy], [Store],
// [Drop] or [Reject].
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

// FromInterface matches packets that arrived on an interface, or with a final + on one whose name begins so, as
// iptables writes it.
type FromInterface struct{ Name string }

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

// Copy writes a field of the connection into one of the packet.
type Copy struct{ To, From Field }

// Store writes a number into a port of the packet.
type Store struct {
	To   Field
	Port uint16
}

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
	}
	return fmt.Sprint(s.Value)
}

// StateNew is the state of a connection that begins, by connection tracking (NF_CT_STATE_BIT in
// linux/netfilter/nf_conntrack_common.h).
const StateNew = 1 << 3

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

func (s Within) text(f Family) string { return s.Field.Name(f) + " " + s.Prefix.String() }

func (s FromInterface) text(Family) string {
	return fmt.Sprintf("iifname %q", strings.Replace(s.Name, "+", "*", 1))
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
func (s Store) text(f Family) string { return fmt.Sprintf("%s set %d", s.To.Name(f), s.Port) }
func (s Drop) text(Family) string    { return "drop" }

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
