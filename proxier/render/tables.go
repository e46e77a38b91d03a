package render

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/nftables"
)

// tableName is the name of our nf_tables table in every family.
const tableName = "kube-hop"

// The sets of the nf_tables tables.
const (
	// setFrontends holds every frontend, whatever its kind.
	setFrontends = "frontends"
	// mapInside gives the external frontends of Services with policy Local the mark of their inside view.
	mapInside = "inside"
	// setMarks holds the marks in use. It is the record that a mark-based virtual server is ours: written before it,
	// deleted after it.
	setMarks = "inside-marks"
	// setReleased holds the addresses that no frontend has any more, for as long as the connections are ended that
	// were made through them.
	setReleased = "released"
	// setOnePacket holds the frontends with one-packet scheduling.
	setOnePacket = "one-packet"
	// mapAnswers holds which of those frontends a client, as the endpoint sees it, has asked at an endpoint.
	mapAnswers = "answers"
	// setMistaken holds the clients, as address and port, of which IPVS has taken replies for those of another connection.
	setMistaken = "mistaken"
	// setSilent holds endpoints, as address, protocol and port, that are watched because they seem dead. The first packet
	// that one sends takes it out.
	setSilent = "silent"
	// setARP holds the bound IPv4 addresses that are not in a ServiceCIDR.
	setARP = "vips"
)

// The priorities of the chains, between those of IPVS, which are: LOCAL_IN 98 translates replies, 99 schedules;
// FORWARD 100 translates replies; LOCAL_OUT -99 translates replies, -98 schedules. Source: ip_vs_ops4 in
// net/netfilter/ipvs/ip_vs_core.c. Whatever hooks in at -98 or 99 too may come before or after IPVS.
const (
	beforeTracking    = -201 // of connections, which is at -200
	afterTracking     = -199
	afterNAT          = -98 // of destinations in PREROUTING, which is at -100
	beforeReplyIn     = 97
	beforeForward     = 99
	beforeReplyOut    = -100
	beforeScheduleIn  = 98
	afterIn           = 101
	afterForward      = 101
	beforeScheduleOut = -99
	afterOut          = -97
	beforeSourceNAT   = 99 // which is at 100
	afterSourceNAT    = 101
	// first is before everything that looks at marks: raw has -300, defragmentation -400.
	first = -500
)

func nftFamily(f lb.Family) nftables.Family {
	if f == lb.IPv6 {
		return nftables.IPv6
	}
	return nftables.IPv4
}

// Tables returns the nf_tables tables of the served families; none where the kernel cannot hold them. They are the
// same whatever Services exist, but for the chains of what no Service uses.
func Tables(facts Facts, cfg Config, uses Uses) []nftables.Table {
	if !cfg.NFTables {
		return nil
	}
	var out []nftables.Table
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		if cfg.serves(f) {
			out = append(out, ipTable(f, facts, cfg, uses))
		}
	}
	if cfg.serves(lb.IPv4) {
		out = append(out, arpTable(facts))
	}
	return out
}

func ipTable(f lb.Family, facts Facts, cfg Config, uses Uses) nftables.Table {
	return nftables.Table{
		Family: nftFamily(f), Name: tableName,
		Sets: []nftables.Set{
			{Name: setFrontends, Key: nftables.AddrProtoPort},
			{Name: mapInside, Key: nftables.AddrProtoPort, Value: nftables.PacketMark},
			{Name: setMarks, Key: nftables.PacketMark},
			{Name: setReleased, Key: nftables.Addr},
			{Name: setOnePacket, Key: nftables.AddrProtoPort},
			{Name: mapAnswers, Key: nftables.AddrPorts, Value: nftables.AddrPort, Learned: answerTime},
			{Name: setMistaken, Key: nftables.AddrPort, Learned: mistakenTime},
			{Name: setSilent, Key: nftables.AddrProtoPort, Learned: silentTime},
		},
		Chains: slices.Concat(replyChains(f), uses.Inside.chains(viewChains(f, facts.Node, cfg)),
			uses.OnePacket.chains(onePacketChains(f, facts, cfg))),
	}
}

// What a frontend is looked up by: where a packet goes, where it comes from, where its connection was opened to.
func toFrontend() []nftables.Field {
	return []nftables.Field{nftables.DestAddr, nftables.Proto, nftables.DestPort}
}

func fromFrontend() []nftables.Field {
	return []nftables.Field{nftables.SourceAddr, nftables.Proto, nftables.SourcePort}
}

func openedTo() []nftables.Field {
	return []nftables.Field{nftables.OriginalDest, nftables.Proto, nftables.OriginalDestPort}
}

func direction(reply uint32) nftables.Is {
	return nftables.Is{Field: nftables.Direction, Value: reply}
}

// viewChains lead clients inside the cluster to the inside view: right before IPVS chooses a virtual server, the mark
// of one is put on the packet, in place of whatever others have put there. IPVS sends the packet on through LOCAL_OUT;
// there the mark is taken away before anybody else can see it, and what comes from this node itself is masqueraded.
func viewChains(f lb.Family, n lb.Node, cfg Config) []nftables.Chain {
	mark := nftables.Rule{direction(0), nftables.MarkBy{Fields: toFrontend(), Map: mapInside}}
	// Most packets have not even the bits that the marks of all views have.
	chosen := nftables.Rule{nftables.MarkHas{Bits: markBase}, nftables.In{Fields: []nftables.Field{nftables.Mark}, Set: setMarks}}
	var pods []nftables.Rule
	if from, ok := fromPod(f, n, cfg); ok {
		pods = append(pods, append(nftables.Rule{from}, mark...))
	}
	return []nftables.Chain{
		{Name: "inside-pods", Hook: nftables.Input, Priority: beforeScheduleIn, Rules: pods},
		{Name: "inside-node", Hook: nftables.Output, Priority: beforeScheduleOut, Rules: []nftables.Rule{mark}},
		{Name: "inside-chosen", Hook: nftables.Output, Priority: first, Rules: []nftables.Rule{
			slices.Concat(chosen, nftables.Rule{nftables.FromLocal(), nftables.SetMark{Mark: cfg.Mark()}, nftables.Accept{}}),
			slices.Concat(chosen, nftables.Rule{nftables.SetMark{}}),
		}},
	}
}

// fromPod matches traffic of pods, as clusterIPMasquerade tells it.
func fromPod(f lb.Family, n lb.Node, cfg Config) (nftables.Statement, bool) {
	if cfg.Local.Interface != "" {
		return nftables.FromInterface{Name: cfg.Local.Interface}, true
	}
	for _, p := range cfg.Local.ranges(n) {
		if lb.FamilyOf(p.Addr()) == f {
			return nftables.Within{Field: nftables.SourceAddr, Prefix: p}, true
		}
	}
	return nil, false
}

// replyChains put right what IPVS does to replies. It tells the connection of a reply by client and real server
// alone, so of two connections from one client port to one endpoint, through two VIPs or through a VIP and directly,
// the older one's replies get the wrong source; and the node's own sockets are looked for before IPVS has translated a
// reply, so that one from a VIP may find the socket of a connection that goes to the endpoint directly. And IPVS takes
// a SYN+ACK or a datagram that answers the node itself for a request, if the node's port is the number of a node port.
//
// Every packet of the node passes these chains, and each costs it some hundred instructions even if no rule matches. So what
// is to be done for requests at the same place is in the same chain.
func replyChains(f lb.Family) []nftables.Chain {
	toService := nftables.In{Fields: openedTo(), Set: setFrontends}
	notToService := nftables.In{Fields: openedTo(), Set: setFrontends, Not: true}
	toNodePort := nftables.In{Fields: toFrontend(), Set: setFrontends}
	source := sourceRules(f, fromOneOf(setFrontends))
	answers := answerSourceRules(f)
	early := sourceRules(f, clientOf(setMistaken), toService)
	return []nftables.Chain{
		// Before routing, which may not know a way to a released address any more.
		{Name: "before-routing", Hook: nftables.Prerouting, Priority: afterNAT, Rules: slices.Concat(releasedRules(),
			heard(onlyReplies(hideRules(portsOf(f), toService, nftables.ToLocal()))))},
		{Name: "show-to-all", Hook: nftables.Input, Priority: first, Rules: onlyReplies(showRules(f))},
		{Name: "hide-from-ipvs", Hook: nftables.Input, Priority: beforeReplyIn, Rules: onlyReplies(
			hideRules(portsOf(f), toNodePort, notToService), hideRules(datagrams(f), toNodePort, openedToOnePacket()), early)},
		{Name: "early-forward", Hook: nftables.Forward, Priority: beforeForward, Rules: onlyReplies(early)},
		{Name: "early-out", Hook: nftables.Output, Priority: beforeReplyOut, Rules: heard(onlyReplies(early))},
		{Name: "reply-in", Hook: nftables.Input, Priority: afterIn, Rules: afterIPVS(showRules(f), source, answers)},
		{Name: "reply-forward", Hook: nftables.Forward, Priority: afterForward, Rules: afterIPVS(source, answers)},
		{Name: "reply-out", Hook: nftables.Output, Priority: afterOut, Rules: slices.Concat(releasedRules(), afterIPVS(source))},
	}
}

// onlyReplies joins rules that are all for replies of one protocol. Every packet of the node passes them, so all but
// replies leave the chain at once, and those of TCP after the rules for them.
func onlyReplies(rules ...[]nftables.Rule) []nftables.Rule {
	isTCP := nftables.Is{Field: nftables.Proto, Value: uint32(ipvs.TCP)}
	out := []nftables.Rule{{direction(0), nftables.Accept{}}}
	var others []nftables.Rule
	for _, r := range slices.Concat(rules...) {
		if slices.Contains(r, nftables.Statement(isTCP)) {
			out = append(out, r)
		} else {
			others = append(others, r)
		}
	}
	return slices.Concat(out, []nftables.Rule{{isTCP, nftables.Accept{}}}, others)
}

// afterIPVS is onlyReplies for chains that see what IPVS has done to replies.
func afterIPVS(rules ...[]nftables.Rule) []nftables.Rule {
	return append([]nftables.Rule{mistakenRule()}, onlyReplies(rules...)...)
}

// silentTime is for how long an endpoint is watched. One that is not watched any more counts as heard.
const silentTime = 10 * time.Minute

// heard adds the rule that notices what watched endpoints send, from other hosts or from this node, to a chain that sees
// replies before IPVS translates them. It comes behind the one by which all but replies leave.
func heard(chain []nftables.Rule) []nftables.Rule {
	return slices.Insert(chain, 1, nftables.Rule{nftables.Forget{Set: setSilent, By: fromFrontend()}})
}

// WatchEndpoint returns the operation that adds an endpoint to those that are watched.
func WatchEndpoint(p ipvs.Proto, d ipvs.Dest) nftables.Op {
	k := ipvs.Key{Addr: d.Addr, Port: d.Port, Proto: p}
	return nftables.Op{Set: setID(lb.FamilyOf(d.Addr), setSilent), Key: elementKey(k)}
}

// mistakenTime is for how long IPVS is kept from the replies to a client of which it has mistaken some.
const mistakenTime = time.Minute

// mistakenRule notes clients whose replies IPVS takes for those of a connection that has ended. When a client opens a
// connection that it had before, IPVS gives the old one up and takes its mark of being tracked away (IP_VS_CONN_F_NFCT, in
// ip_vs_in_hook of ip_vs_core.c); a reply to the same client port that comes at this moment, from the same endpoint but
// through another VIP, puts the old one's end off again and again. All such replies leave connection tracking, which then
// cannot say any more what their source is to be. So from the next one on they get it before IPVS sees them, which then
// knows nothing of them, and the old connection ends.
func mistakenRule() nftables.Rule {
	return nftables.Rule{nftables.Untracked(), fromOneOf(setFrontends), nftables.Learn{Map: setMistaken, By: client()}}
}

// client is who a reply goes to.
func client() []nftables.Field { return []nftables.Field{nftables.DestAddr, nftables.DestPort} }

func clientOf(set string) nftables.In { return nftables.In{Fields: client(), Set: set} }

func fromOneOf(set string) nftables.In { return nftables.In{Fields: fromFrontend(), Set: set} }

// releasedRules end the connections that were made through a frontend of an address that has none any more. They are
// known by who answers, nobody at the address itself, or, when IPVS has forgotten them already (as it does with the node's
// own), by going on without a beginning. What is opened to the address from now on is left alone, whoever has it.
func releasedRules() []nftables.Rule {
	of := func(p ipvs.Proto, more ...nftables.Statement) nftables.Rule {
		return append(nftables.Rule{direction(0), nftables.Is{Field: nftables.Proto, Value: uint32(p)}}, more...)
	}
	byAnother := nftables.In{Fields: []nftables.Field{nftables.ReplySource}, Set: setReleased, Not: true}
	begun := append([]nftables.Statement{nftables.Is{Field: nftables.ConnState, Value: nftables.StateNew}}, nftables.NoSYN()...)
	return []nftables.Rule{
		{direction(0), nftables.In{Fields: []nftables.Field{nftables.DestAddr}, Set: setReleased, Not: true}, nftables.Accept{}},
		of(ipvs.TCP, byAnother, nftables.Reject{Reset: true}),
		of(ipvs.TCP, append(begun, nftables.Reject{Reset: true})...),
		of(ipvs.SCTP, byAnother, nftables.Reject{}),
	}
}

// ports is how the ports of a protocol are written, and of which of its packets.
type ports struct {
	proto        ipvs.Proto
	source, dest nftables.Field // dest is zero for SCTP, whose replies nobody takes too early
	only         []nftables.Statement
}

// portsOf returns the ways of writing ports. Datagrams without a checksum, which IPv4 has, must not get one.
func portsOf(f lb.Family) []ports {
	all := []ports{
		{proto: ipvs.TCP, source: nftables.TCPSourcePort, dest: nftables.TCPDestPort},
		{proto: ipvs.UDP, source: nftables.UDPSourcePort, dest: nftables.UDPDestPort},
		{proto: ipvs.SCTP, source: nftables.SCTPSourcePort},
	}
	if f == lb.IPv4 {
		all[1].only = []nftables.Statement{nftables.Is{Field: nftables.UDPChecksum, Not: true}}
		all = append(all, ports{
			proto: ipvs.UDP, source: nftables.SourcePort, dest: nftables.DestPort,
			only: []nftables.Statement{nftables.Is{Field: nftables.UDPChecksum}},
		})
	}
	return all
}

// reply begins a rule for replies of a protocol; see onlyReplies. What connection tracking does not know comes there too, and is
// matched by no rule that asks it.
func (p ports) reply(more ...nftables.Statement) nftables.Rule {
	return slices.Concat(nftables.Rule{nftables.Is{Field: nftables.Proto, Value: uint32(p.proto)}}, p.only, more)
}

// sourceRules give those replies that match the source that their connection was opened to, as connection tracking knows
// it. After IPVS almost all have that already.
func sourceRules(f lb.Family, matches ...nftables.Statement) []nftables.Rule {
	var out []nftables.Rule
	for _, p := range portsOf(f) {
		out = append(out, append(p.reply(matches...),
			nftables.Copy{To: nftables.SourceAddr, From: nftables.OriginalDest},
			nftables.Copy{To: p.source, From: nftables.OriginalDestPort}))
	}
	return out
}

// hideRules give those replies to this node's own connections that match a port that no socket and no virtual server
// has.
func hideRules(of []ports, matches ...nftables.Statement) []nftables.Rule {
	var out []nftables.Rule
	for _, p := range of {
		if p.dest != 0 {
			out = append(out, append(p.reply(matches...), nftables.Store{To: p.dest}))
		}
	}
	return out
}

// showRules give hidden replies their port back. Nothing else has port 0.
func showRules(f lb.Family) []nftables.Rule {
	var out []nftables.Rule
	for _, p := range portsOf(f) {
		if p.dest != 0 {
			out = append(out, p.reply(nftables.Is{Field: p.dest}, nftables.Copy{To: p.dest, From: nftables.OriginalSrcPort}))
		}
	}
	return out
}

// arpTable keeps the node from answering ARP for addresses that it only made local. IPv6 needs nothing of the kind:
// neighbour discovery answers for addresses of interfaces, and not for local routes.
func arpTable(facts Facts) nftables.Table {
	request := nftables.Is{Field: nftables.ARPOperation, Value: 1}
	rules := []nftables.Rule{{request, nftables.In{Fields: []nftables.Field{nftables.ARPTarget}, Set: setARP}, nftables.Drop{}}}
	for _, p := range facts.ServiceCIDRs {
		if p.Addr().Is4() {
			rules = append(rules, nftables.Rule{request, nftables.Within{Field: nftables.ARPTarget, Prefix: p}, nftables.Drop{}})
		}
	}
	return nftables.Table{
		Family: nftables.ARP, Name: tableName,
		Sets:   []nftables.Set{{Name: setARP, Key: nftables.Addr}},
		Chains: []nftables.Chain{{Name: "answers", Hook: nftables.ARPInput, Rules: rules}},
	}
}

// element is one element of one set, wanted or present.
type element struct {
	set  nftables.SetID
	key  nftables.Key
	mark uint32
}

func (e element) op(remove bool) nftables.Op {
	return nftables.Op{Delete: remove, Set: e.set, Key: e.key, Mark: e.mark}
}

func setID(f lb.Family, name string) nftables.SetID {
	return nftables.SetID{Family: nftFamily(f), Table: tableName, Name: name}
}

func onePacketElement(k ipvs.Key) element {
	return element{set: setID(lb.FamilyOf(k.Addr), setOnePacket), key: elementKey(k)}
}

func frontendElement(k ipvs.Key) element {
	return element{set: setID(lb.FamilyOf(k.Addr), setFrontends), key: elementKey(k)}
}

// insideElement leads a frontend's inside clients to the virtual server of a mark.
func insideElement(k, view ipvs.Key) element {
	return element{set: setID(lb.FamilyOf(k.Addr), mapInside), key: elementKey(k), mark: view.Mark}
}

func markElement(view ipvs.Key) element {
	return element{set: setID(lb.FamilyOf(view.Addr), setMarks), key: nftables.Key{Mark: view.Mark}}
}

func releasedElement(a netip.Addr) element {
	return element{set: setID(lb.FamilyOf(a), setReleased), key: nftables.Key{Addr: a}}
}

func arpElement(a netip.Addr) element {
	return element{set: nftables.SetID{Family: nftables.ARP, Table: tableName, Name: setARP}, key: nftables.Key{Addr: a}}
}

func elementKey(k ipvs.Key) nftables.Key {
	return nftables.Key{Addr: k.Addr, Proto: uint8(k.Proto), Port: k.Port}
}

// keyOf returns the frontend or the mark-based virtual server that an element is about; false for an address.
func keyOf(set nftables.SetID, k nftables.Key) (ipvs.Key, bool) {
	switch k.Type() {
	case nftables.PacketMark:
		return markKey(set.Family == nftables.IPv6, k.Mark), true
	case nftables.AddrProtoPort:
		return ipvs.Key{Addr: k.Addr, Port: k.Port, Proto: ipvs.Proto(k.Proto)}, true
	case nftables.Addr, nftables.AddrPort, nftables.AddrPorts:
	}
	return ipvs.Key{}, false
}

// markKey returns the key of a mark-based virtual server.
func markKey(v6 bool, mark uint32) ipvs.Key {
	if v6 {
		return ipvs.Key{Addr: netip.IPv6Unspecified(), Mark: mark}
	}
	return ipvs.Key{Addr: netip.IPv4Unspecified(), Mark: mark}
}
