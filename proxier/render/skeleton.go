package render

import (
	"fmt"
	"slices"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/lb"
)

// The chains of the skeleton. KUBE-MARK-MASQ and KUBE-POSTROUTING keep kube-proxy's names, because the CNI portmap
// plugin is commonly told to jump to the former (service-proxy contract in the Kubernetes network plugin docs).
const (
	chainServices    = "KUBE-HOP-SERVICES"
	chainGuard       = "KUBE-HOP-GUARD"
	chainInput       = "KUBE-HOP-INPUT"
	chainFlows       = "KUBE-HOP-FLOWS"
	chainOutput      = "KUBE-HOP-OUTPUT"
	chainForward     = "KUBE-HOP-FORWARD"
	chainAccess      = "KUBE-HOP-ACCESS"
	chainInvalid     = "KUBE-HOP-INVALID"
	chainMarkMasq    = "KUBE-MARK-MASQ"
	chainPostrouting = "KUBE-POSTROUTING"
)

// sameAddress recognises a pod that reached itself through a Service by the packet alone, so that no entry per
// endpoint is needed, and also when the pod's packets were translated on another node.
func sameAddress(f lb.Family) string {
	if f == lb.IPv6 {
		return iptables.SameAddressIPv6
	}
	return iptables.SameAddressIPv4
}

// Skeleton returns the rules of one family. They are the same whatever Services exist; of the Node only its podCIDRs
// matter, and only in detect-local mode NodeCIDR.
func Skeleton(f lb.Family, n lb.Node, cfg Config) iptables.Ruleset {
	return iptables.Ruleset{
		Family: iptables.Family(f),
		Chains: slices.Concat(natChains(f, n, cfg), filterChains(f, n, cfg), accessChains(f), invalidChains(f, n, cfg)),
		Jumps: []iptables.Jump{
			jump("nat", "PREROUTING", chainServices, "kubernetes service portals"),
			jump("nat", "OUTPUT", chainServices, "kubernetes service portals"),
			jump("nat", "POSTROUTING", chainPostrouting, "kubernetes postrouting rules"),
			// Established connections are left alone, and pass only one rule here.
			jumpNew("mangle", "OUTPUT", chainAccess, "kube-hop source ranges"),
			{Table: "filter", Chain: "INPUT", Rule: rule("-m comment --comment %q -m conntrack --ctstate INVALID -j %s", "kube-hop invalid packets", chainInvalid)},
			jumpNew("filter", "INPUT", chainInput, "kube-hop service guards"),
			jumpIn("RELATED,ESTABLISHED", "filter", "INPUT", chainFlows, "kube-hop service traffic"),
			jumpNew("filter", "OUTPUT", chainOutput, "kube-hop service guards"),
			jump("filter", "FORWARD", chainForward, "kube-hop forwarding rules"),
		},
	}
}

func jump(table, chain, target, comment string) iptables.Jump {
	return iptables.Jump{Table: table, Chain: chain, Rule: rule("-m comment --comment %q -j %s", comment, target)}
}

// jumpNew is jump for packets that open a connection.
func jumpNew(table, chain, target, comment string) iptables.Jump {
	return jumpIn("NEW", table, chain, target, comment)
}

// jumpIn is jump for packets in one of the states of a connection.
func jumpIn(states, table, chain, target, comment string) iptables.Jump {
	return iptables.Jump{Table: table, Chain: chain, Rule: rule("-m comment --comment %q -m conntrack --ctstate %s -j %s", comment, states, target)}
}

func rule(format string, args ...any) iptables.Rule {
	return iptables.Rule(fmt.Sprintf(format, args...))
}

// natChains decide on the first packet of a connection whether it will be masqueraded, and masquerade it.
func natChains(f lb.Family, n lb.Node, cfg Config) []iptables.Chain {
	mark := fmt.Sprintf("%#x/%#x", cfg.Mark(), cfg.Mark())
	external := matchSet(f, setExternal, "dst,dst")
	externalLocal := matchSet(f, setExternalLocal, "dst,dst")

	services := []iptables.Rule{
		rule("%s -j %s", external, chainMarkMasq),
		rule("%s -j ACCEPT", external),
		rule("%s -m addrtype --src-type LOCAL -j %s", externalLocal, chainMarkMasq),
		rule("%s -j ACCEPT", externalLocal),
	}
	if r, ok := clusterIPMasquerade(f, n, cfg); ok {
		services = append(services, r)
	}
	// VIPs are local addresses. Accepting ends the chain for them, so that rules of others for "local
	// destinations", such as a host port's DNAT, do not take a Service's traffic.
	services = append(services, rule("%s -j ACCEPT", matchSet(f, setVIP, "dst")))

	return []iptables.Chain{
		{Table: "nat", Name: chainServices, Rules: services},
		{Table: "nat", Name: chainMarkMasq, Rules: []iptables.Rule{rule("-j MARK --set-xmark %s", mark)}},
		{Table: "nat", Name: chainPostrouting, Rules: []iptables.Rule{
			// The loopback device is left out: there every packet of the node to itself has equal addresses.
			rule(`! -o lo -m bpf --bytecode "%s" -j MASQUERADE --random-fully`, sameAddress(f)),
			rule("-m mark ! --mark %s -j RETURN", mark),
			// The bit is cleared first, so that a packet that passes the stack again (a tunnel) is not translated twice.
			rule("-j MARK --set-xmark 0x0/%#x", cfg.Mark()),
			rule("-j MASQUERADE --random-fully"),
		}},
	}
}

// clusterIPMasquerade returns the rule that marks ClusterIP traffic from sources that are not local pods, if there
// is any: without a detector for the family nobody can be told apart, and then nothing is masqueraded.
func clusterIPMasquerade(f lb.Family, n lb.Node, cfg Config) (iptables.Rule, bool) {
	from, ok := masqueradedAtClusterIP(f, n, cfg)
	return rule("%s%s -j %s", from, matchSet(f, setClusterIP, "dst"), chainMarkMasq), ok
}

// masqueradedAtClusterIP returns the match, with a final space, of the sources that are masqueraded at ClusterIPs, and
// whether there are any.
func masqueradedAtClusterIP(f lb.Family, n lb.Node, cfg Config) (from string, ok bool) {
	if cfg.MasqueradeAll {
		return "", true
	}
	from = notPod(f, n, cfg)
	return from, from != ""
}

// notPod returns the match, with a final space, of sources that are not pods; nothing without a detector for the family.
func notPod(f lb.Family, n lb.Node, cfg Config) string {
	if cfg.Local.Interface != "" {
		return fmt.Sprintf("! -i %s ", cfg.Local.Interface)
	}
	for _, p := range cfg.Local.ranges(n) {
		if lb.FamilyOf(p.Addr()) == f {
			return fmt.Sprintf("! -s %s ", p)
		}
	}
	return ""
}

// filterChains keep everything but Service ports from being reached at a VIP, and let Service traffic pass: whatever
// the rules and the policy of INPUT and FORWARD are for the host itself, they are not for Services, as in kube-proxy's
// iptables mode, where Service traffic never comes to INPUT.
func filterChains(f lb.Family, n lb.Node, cfg Config) []iptables.Chain {
	icmp, reject := "icmp", "icmp-port-unreachable"
	if f == lb.IPv6 {
		icmp, reject = "ipv6-icmp", "icmp6-port-unreachable"
	}
	guards := []iptables.Rule{
		rule("%s -j %s", matchSet(f, setVIP, "dst"), chainGuard),
		// RETURN, for what is to be done with the node's own addresses is up to the rules of others.
		rule("%s -j RETURN", matchSet(f, setOwn, "dst")),
		// An address of a ServiceCIDR that no Service has: nobody is to conclude anything from an answer.
		rule("%s -j DROP", matchSet(f, setClusterIP, "dst")),
	}
	served := acceptAt(f, setServed)
	onNode := slices.Concat(tooLate(f), []iptables.Rule{acceptAt(f, setExternal), acceptAt(f, setExternalLocal), acceptAt(f, setHealth)})
	// Connection tracking knows a flow for longer than its frontend is there. ICMP errors about one that is there pass.
	flows := []iptables.Rule{served, rule("! -p %s %s -j %s", icmp, matchSet(f, setVIP, "dst"), chainGuard)}
	return []iptables.Chain{
		{Table: "filter", Name: chainGuard, Rules: []iptables.Rule{
			served,
			acceptAt(f, setHealth),
			// What goes on with a connection whose frontend is gone: a client takes an ICMP error for a passing
			// trouble then, and would wait for minutes.
			rule("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset"),
			rule("-j REJECT --reject-with %s", reject),
		}},
		{Table: "filter", Name: chainAccess, Rules: accessRules(f)},
		{Table: "filter", Name: chainInput, Rules: slices.Concat(olderRules(f, n, cfg), []iptables.Rule{rule("-j %s", chainAccess), noLocalOutside(f, n, cfg)}, guards, onNode)},
		{Table: "filter", Name: chainFlows, Rules: slices.Concat(flows, onNode)},
		// IPVS takes the node's own connections before this chain (LOCAL_OUT priority -98); what arrives here
		// with a VIP as destination has no virtual server.
		{Table: "filter", Name: chainOutput, Rules: guards},
		{Table: "filter", Name: chainForward, Rules: []iptables.Rule{
			rule("-m mark --mark %#x/%#x -j ACCEPT", cfg.Mark(), cfg.Mark()),
			rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
		}},
	}
}

// olderRules drop what opens a connection again that began before its frontend: nobody has answered, and since nothing
// was translated when it was first tracked it would not be masqueraded. The entry is deleted soon (package conntrack),
// and then it is a new connection. Of UDP nothing is dropped, since one-packet scheduling looks the same.
func olderRules(f lb.Family, n lb.Node, cfg Config) []iptables.Rule {
	const older = "! -p udp -m conntrack ! --ctstate SNAT --ctstatus CONFIRMED"
	out := []iptables.Rule{rule("%s %s -j DROP", older, matchSet(f, setExternal, "dst,dst"))}
	if from, ok := masqueradedAtClusterIP(f, n, cfg); ok {
		out = append(out, rule("%s%s %s -j DROP", from, older, matchSet(f, setClusterIP, "dst")))
	}
	return out
}

// noLocalOutside drops new connections of clients outside of the cluster for which the traffic policy leaves no endpoint.
// Those of the node itself do not come here.
func noLocalOutside(f lb.Family, n lb.Node, cfg Config) iptables.Rule {
	return rule("%s%s -j DROP", notPod(f, n, cfg), matchSet(f, setNoLocalOutside, "dst,dst"))
}

// tooLate drops what was on its way to a VIP, or to a port that alone was local, when that was released: a packet whose way
// was chosen before, and which a busy machine delivers after the guard has gone. The node itself would answer it. What has
// come by the address since is not asked: if the node has it now, it is local again, and to other hosts packets do not come
// this way.
func tooLate(f lb.Family) []iptables.Rule {
	const notLocal = "-m addrtype ! --dst-type LOCAL -j DROP"
	return []iptables.Rule{
		rule("%s %s", matchSet(f, setGone, "dst"), notLocal),
		rule("%s %s", matchSet(f, setGonePort, "dst,dst"), notLocal),
	}
}

// invalidChains drop what connection tracking calls invalid, such as a segment far outside of the window, and of which
// it therefore does not undo the masquerading. The answer of a pod then arrives for a port of this node that no socket
// has, and the node's reset would end a healthy connection; a client's segment would reach the pod with the client's own
// address. What is translated by IPVS alone is right without connection tracking and passes, as does everything that is
// not ours: only pods answer a masqueraded connection. The chain is empty where such segments are not invalid at all.
func invalidChains(f lb.Family, n lb.Node, cfg Config) []iptables.Chain {
	c := iptables.Chain{Table: "filter", Name: chainInvalid}
	if cfg.TCPBeLiberal {
		return []iptables.Chain{c}
	}
	c.Rules = append(c.Rules, rule("%s -j DROP", matchSet(f, setExternal, "dst,dst")))
	for _, p := range cfg.Local.ranges(n) {
		if lb.FamilyOf(p.Addr()) == f {
			c.Rules = append(c.Rules, rule("-s %s -p tcp -m addrtype --dst-type LOCAL -m set ! --match-set %s dst -j DROP", p, setName(f, setVIP)))
			break
		}
	}
	return []iptables.Chain{c}
}

func acceptAt(f lb.Family, set string) iptables.Rule {
	return rule("%s -j ACCEPT", matchSet(f, set, "dst,dst"))
}

// accessChains does for the node's own connections what filter INPUT does for those of others: IPVS takes them
// before filter OUTPUT, at LOCAL_OUT priority -98, so the mangle table has to drop them.
func accessChains(f lb.Family) []iptables.Chain {
	return []iptables.Chain{{Table: "mangle", Name: chainAccess, Rules: accessRules(f)}}
}

// accessRules drop new connections from sources that a frontend is not for, and those for which the traffic policy
// leaves no endpoint.
func accessRules(f lb.Family) []iptables.Rule {
	return []iptables.Rule{
		rule("%s -m set ! --match-set %s dst,dst,src -j DROP", matchSet(f, setRanged, "dst,dst"), setName(f, setRange)),
		rule("%s -j DROP", matchSet(f, setNoLocal, "dst,dst")),
	}
}

func matchSet(f lb.Family, set, direction string) string {
	return fmt.Sprintf("-m set --match-set %s %s", setName(f, set), direction)
}
