package render

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/nftables"
)

// answerTime is for how long an endpoint can answer a datagram that was scheduled on its own. Connection tracking gives it
// as long (nf_conntrack_udp_timeout).
const answerTime = 30 * time.Second

func (f *Frontend) onePacket() bool { return f.Virtual.Config.Flags&ipvs.FlagOnePacket != 0 }

// onePackets counts the frontends with that scheduling.
func onePackets(of []Frontend) int {
	n := 0
	for i := range of {
		if of[i].onePacket() {
			n++
		}
	}
	return n
}

// onePacketChains give the answers of endpoints the source that was asked where every datagram is scheduled on its own.
// IPVS keeps no connection then, and does not tell connection tracking where a datagram went: there the datagrams of a
// client port to a frontend are one connection, which the frontend itself would answer. So it is noted here whom a client,
// as the endpoint sees it, asks at an endpoint (asked), and before connection tracking sees an answer, it gets that
// frontend as its source (answer): then it is a reply like any other, and translation is undone.
//
// That source is a local address, so that routing would drop an IPv4 packet that arrives with it, whatever rp_filter is.
// So the packet gets its own address back once connection tracking has seen it (answer-from), and the frontend's again
// after routing (reply-in, reply-forward). Meanwhile its priority keeps the address: nothing has set that when a packet has
// just arrived, and the kernel sets it anew when it sends the packet on.
//
// Sources are translated here (one-packet-source), to ports at random, so that an endpoint sees a port of its own for each
// frontend that a client port asks, and none that the client uses itself; what is not masqueraded, after the rules of
// others, which masquerade a pod that reaches itself (one-packet-port). Masquerading would not do: the kernel drops the
// packets of a masqueraded connection that leave through different interfaces, as those to different endpoints may.
func onePacketChains(f lb.Family, facts Facts, cfg Config) []nftables.Chain {
	keep := nftables.Field(0)
	if f == lb.IPv4 {
		keep = nftables.Priority
	}
	masquerade := onePacketMasquerade(f, facts, cfg)
	ownAddress := nftables.Rule{isUDP(), sentAlone(), nftables.SourceNAT{}}
	asked := askedRule(nftables.DestAddr)
	return []nftables.Chain{
		{Name: "one-packet-source", Hook: nftables.Postrouting, Priority: beforeSourceNAT, NAT: true, Rules: masquerade},
		{Name: "one-packet-port", Hook: nftables.Postrouting, Priority: afterSourceNAT, NAT: true, Rules: []nftables.Rule{ownAddress}},
		{Name: "one-packet-here", Hook: nftables.Input, Priority: beforeSourceNAT, NAT: true, Rules: append(masquerade, ownAddress)},
		{Name: "asked", Hook: nftables.Postrouting, Priority: afterSourceNAT, Rules: []nftables.Rule{asked}},
		{Name: "asked-here", Hook: nftables.Input, Priority: afterIn, Rules: []nftables.Rule{
			asked,
			// A socket for all addresses answers an address of this node, as which a client is masqueraded, from the same.
			askedRule(nftables.SourceAddr),
		}},
		{Name: "answer", Hook: nftables.Prerouting, Priority: beforeTracking, Rules: answerRules(f, keep)},
		{Name: "answer-from", Hook: nftables.Prerouting, Priority: afterTracking, Rules: answerFromRules(keep)},
		{Name: "answer-here", Hook: nftables.Output, Priority: beforeTracking, Rules: answerRules(f, 0)},
	}
}

// datagrams returns the ways of writing the ports of UDP.
func datagrams(f lb.Family) []ports {
	return slices.DeleteFunc(portsOf(f), func(p ports) bool { return p.proto != ipvs.UDP })
}

func isUDP() nftables.Is { return nftables.Is{Field: nftables.Proto, Value: uint32(ipvs.UDP)} }

// sentAlone matches datagrams that IPVS has scheduled on their own: connection tracking awaits the answer from the frontend.
// IPVS keeps to connections that it has from before the frontend got that scheduling; of those an endpoint is awaited.
func sentAlone() nftables.In {
	return nftables.In{Fields: []nftables.Field{nftables.ReplySource, nftables.Proto, nftables.ReplySourcePort}, Set: setOnePacket}
}

func openedToOnePacket() nftables.In { return nftables.In{Fields: openedTo(), Set: setOnePacket} }

// askedRule notes whom a client asks at an endpoint, which will answer from the address in a field.
func askedRule(from nftables.Field) nftables.Rule {
	return nftables.Rule{isUDP(), direction(0), sentAlone(), nftables.Learn{
		Map: mapAnswers, By: []nftables.Field{from, nftables.UDPDestPort, nftables.SourceAddr, nftables.UDPSourcePort},
		Value: []nftables.Field{nftables.OriginalDest, nftables.OriginalDestPort},
	}}
}

// onePacketMasquerade masquerades what is to be, with an address of this node; nothing if it has none.
func onePacketMasquerade(f lb.Family, facts Facts, cfg Config) []nftables.Rule {
	to := onePacketAddress(f, facts, cfg)
	if !to.IsValid() {
		return nil
	}
	return []nftables.Rule{{
		isUDP(), nftables.MarkHas{Bits: cfg.Mark()}, sentAlone(), nftables.MarkWithout{Bits: cfg.Mark()}, nftables.SourceNAT{To: to},
	}}
}

// onePacketAddress returns the address of this node that all endpoints can answer to, wherever they are: if it has one,
// that among those of pods, as packets for the node's own may take another way than those for pods, and be dropped there.
func onePacketAddress(f lb.Family, facts Facts, cfg Config) netip.Addr {
	for _, p := range slices.Concat(facts.Node.PodCIDRs, cfg.Local.ranges(facts.Node)) {
		for _, a := range facts.Local {
			if lb.FamilyOf(a) == f && p.Contains(a) {
				return a
			}
		}
	}
	if f == lb.IPv6 {
		return facts.source(netip.IPv6Unspecified())
	}
	return facts.source(netip.IPv4Unspecified())
}

// answerRules make endpoints answer as the frontend that was asked. What connection tracking knows already is no answer:
// IPVS sends requests on through LOCAL_OUT, and one client may be another's endpoint.
func answerRules(f lb.Family, keep nftables.Field) []nftables.Rule {
	var out []nftables.Rule
	for _, p := range datagrams(f) {
		out = append(out, slices.Concat(nftables.Rule{isUDP(), nftables.NoConnection()}, p.only, nftables.Rule{nftables.Recall{
			Map: mapAnswers, By: []nftables.Field{nftables.SourceAddr, nftables.UDPSourcePort, nftables.DestAddr, nftables.UDPDestPort},
			To: []nftables.Field{nftables.SourceAddr, p.source}, Keep: keep,
		}}))
	}
	return out
}

// answerFromRules give answers that arrived their own address back, if it was kept.
func answerFromRules(keep nftables.Field) []nftables.Rule {
	if keep == 0 {
		return nil
	}
	return []nftables.Rule{{
		isUDP(), direction(1),
		nftables.In{Fields: fromFrontend(), Set: setOnePacket},
		nftables.FromInterface{Name: "lo", Not: true},
		nftables.Is{Field: keep, Not: true},
		nftables.Copy{To: nftables.SourceAddr, From: keep},
		nftables.Store{To: keep},
	}}
}

// answerSourceRules give answers the source that was asked, after routing.
func answerSourceRules(f lb.Family) []nftables.Rule {
	var out []nftables.Rule
	for _, p := range datagrams(f) {
		out = append(out, p.reply(openedToOnePacket(),
			nftables.Copy{To: nftables.SourceAddr, From: nftables.OriginalDest},
			nftables.Copy{To: p.source, From: nftables.OriginalDestPort}))
	}
	return out
}
