package nftablestest

import (
	"net/netip"
	"time"

	"github.com/kube-hop/kube-hop/nftables"
)

// Skeleton returns a table of a family with every kind of rule and set.
func Skeleton(f nftables.Family) nftables.Table {
	if f == nftables.ARP {
		return nftables.Table{
			Family: f, Name: "hop-test",
			Sets: []nftables.Set{{Name: "addresses", Key: nftables.Addr}},
			Chains: []nftables.Chain{{Name: "arp", Hook: nftables.ARPInput, Rules: []nftables.Rule{
				{
					nftables.Is{Field: nftables.ARPOperation, Value: 1},
					nftables.In{Fields: []nftables.Field{nftables.ARPTarget}, Set: "addresses"},
					nftables.Drop{},
				},
				{nftables.Within{Field: nftables.ARPTarget, Prefix: netip.MustParsePrefix("10.96.0.0/12")}, nftables.Drop{}},
			}}},
		}
	}
	return nftables.Table{
		Family: f, Name: "hop-test",
		Sets: []nftables.Set{
			{Name: "frontends", Key: nftables.AddrProtoPort},
			{Name: "inside", Key: nftables.AddrProtoPort, Value: nftables.PacketMark},
			{Name: "marks", Key: nftables.PacketMark},
			{Name: "released", Key: nftables.Addr},
			{Name: "learned", Key: nftables.AddrPorts, Value: nftables.AddrPort, Learned: 30 * time.Second},
			{Name: "clients", Key: nftables.AddrPort, Learned: time.Minute},
			{Name: "silent", Key: nftables.AddrProtoPort, Learned: 10 * time.Minute},
		},
		Chains: []nftables.Chain{
			{Name: "in", Hook: nftables.Input, Priority: 98, Rules: ipRules(f)},
			{Name: "fwd", Hook: nftables.Forward, Priority: 101, Rules: []nftables.Rule{{nftables.SetMark{Mark: 7}}}},
			{Name: "out", Hook: nftables.Output, Priority: -500},
			{Name: "after", Hook: nftables.Postrouting, Priority: 101, Rules: learningRules(f)},
			{Name: "nat", Hook: nftables.Postrouting, Priority: 99, NAT: true, Rules: natRules(f)},
		},
	}
}

func ipRules(f nftables.Family) []nftables.Rule {
	source := "10.244.0.0/16"
	if f == nftables.IPv6 {
		source = "fd24::/48"
	}
	frontend := []nftables.Field{nftables.DestAddr, nftables.Proto, nftables.DestPort}
	original := []nftables.Field{nftables.OriginalDest, nftables.Proto, nftables.OriginalDestPort}
	return []nftables.Rule{
		{nftables.Within{Field: nftables.SourceAddr, Prefix: netip.MustParsePrefix(source)}, nftables.MarkBy{Fields: frontend, Map: "inside"}},
		{nftables.Is{Field: nftables.Direction, Value: 0}, nftables.Is{Field: nftables.Proto, Value: 6}, nftables.Accept{}},
		{nftables.FromInterface{Name: "cbr0"}, nftables.Is{Field: nftables.Direction, Value: 0}, nftables.SetMark{Mark: 0x12345678}},
		{nftables.FromInterface{Name: "veth+"}, nftables.In{Fields: original, Set: "frontends", Not: true}, nftables.Drop{}},
		{nftables.In{Fields: []nftables.Field{nftables.Mark}, Set: "marks"}, nftables.FromLocal(), nftables.ToLocal(), nftables.SetMark{Mark: 0}},
		{
			nftables.Is{Field: nftables.Direction, Value: 1},
			nftables.Is{Field: nftables.Proto, Value: 6},
			nftables.Copy{To: nftables.SourceAddr, From: nftables.OriginalDest},
			nftables.Copy{To: nftables.TCPSourcePort, From: nftables.OriginalDestPort},
		},
		{
			nftables.Is{Field: nftables.Proto, Value: 17},
			nftables.Is{Field: nftables.UDPChecksum, Not: true, Value: 0},
			nftables.Copy{To: nftables.UDPDestPort, From: nftables.OriginalSrcPort},
		},
		{nftables.Is{Field: nftables.Proto, Value: 132}, nftables.Copy{To: nftables.SCTPSourcePort, From: nftables.OriginalDestPort}},
		{nftables.Is{Field: nftables.Proto, Value: 6}, nftables.Store{To: nftables.TCPDestPort, Value: 0}},
		{nftables.Is{Field: nftables.Proto, Value: 6}, nftables.In{Fields: []nftables.Field{nftables.DestAddr}, Set: "released"}, nftables.Reject{Reset: true}},
		{nftables.In{Fields: []nftables.Field{nftables.ReplySource}, Set: "released", Not: true}, nftables.Reject{}},
		append(nftables.Rule{nftables.Is{Field: nftables.Proto, Value: 6}, nftables.Is{Field: nftables.ConnState, Value: nftables.StateNew}}, nftables.NoSYN()...),
	}
}

// learningRules have what rules can do with a map that they fill, with the longest keys and values.
func learningRules(f nftables.Family) []nftables.Rule {
	flow := []nftables.Field{nftables.DestAddr, nftables.UDPDestPort, nftables.SourceAddr, nftables.UDPSourcePort}
	value := []nftables.Field{nftables.OriginalDest, nftables.OriginalDestPort}
	learn := nftables.Learn{Map: "learned", By: flow, Value: value}
	recall := nftables.Recall{Map: "learned", By: flow, To: []nftables.Field{nftables.SourceAddr, nftables.UDPSourcePort}}
	if f == nftables.IPv4 {
		recall.Keep = nftables.Priority
	}
	udp := nftables.Is{Field: nftables.Proto, Value: 17}
	return []nftables.Rule{
		{nftables.FromInterface{Name: "lo", Not: true}, udp, learn},
		{nftables.NoConnection(), udp, recall},
		{nftables.Untracked(), nftables.Learn{Map: "clients", By: []nftables.Field{nftables.DestAddr, nftables.DestPort}}},
		{nftables.Forget{Set: "silent", By: []nftables.Field{nftables.SourceAddr, nftables.Proto, nftables.SourcePort}}},
		{nftables.Is{Field: nftables.Priority, Not: true}, nftables.Store{To: nftables.Priority}},
	}
}

func natRules(f nftables.Family) []nftables.Rule {
	to := netip.MustParseAddr("192.0.2.1")
	if f == nftables.IPv6 {
		to = netip.MustParseAddr("2001:db8::1")
	}
	return []nftables.Rule{
		{nftables.MarkHas{Bits: 0x4000}, nftables.MarkWithout{Bits: 0x4000}, nftables.SourceNAT{To: to}},
		{
			nftables.In{Fields: []nftables.Field{nftables.ReplySource, nftables.Proto, nftables.ReplySourcePort}, Set: "frontends"},
			nftables.SourceNAT{},
		},
	}
}

func skeletons() []nftables.Table {
	return []nftables.Table{Skeleton(nftables.IPv4), Skeleton(nftables.IPv6), Skeleton(nftables.ARP)}
}
