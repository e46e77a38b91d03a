package iptablestest

import (
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
)

// SkeletonSet is the hash:ip,port set that the rules of Skeleton refer to.
const SkeletonSet = "HOP-TEST"

// Skeleton returns a ruleset with every kind of rule that kube-hop writes, as iptables-save prints them. The set
// that it refers to must be there.
func Skeleton(f iptables.Family) iptables.Ruleset {
	network, address, unreachable, same := "10.244.0.0/16", "192.0.2.1/32", "icmp-port-unreachable", iptables.SameAddressIPv4
	if f == iptables.IPv6 {
		network, address, unreachable, same = "fd00:10:244::/56", "2001:db8::1/128", "icmp6-port-unreachable", iptables.SameAddressIPv6
	}
	return iptables.Ruleset{
		Family: f,
		Chains: []iptables.Chain{
			{Table: "nat", Name: "HOP-RULES", Rules: []iptables.Rule{
				`-m comment --comment "kube-hop: it's \"quoted\", with \\ and more" -j RETURN`,
				"-m comment --comment plain-word -j RETURN",
				"-m set --match-set " + SkeletonSet + " dst,dst -j MARK --set-xmark 0x4000/0x4000",
				"-m set ! --match-set " + SkeletonSet + " src,src -j RETURN",
				"-m addrtype --src-type LOCAL -j RETURN",
				"-m addrtype ! --dst-type LOCAL -j ACCEPT",
				"-m conntrack --ctstate NEW -j RETURN",
				"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
				"-m mark --mark 0x4000/0x4000 -j RETURN",
				"-m mark ! --mark 0x4000/0x4000 -j RETURN",
				iptables.Rule("-s " + network + " -d " + address + " -j RETURN"),
				iptables.Rule("! -s " + network + " ! -o lo -j RETURN"),
				"-i br0 -j RETURN",
				"-i veth+ -j RETURN",
				iptables.Rule("-d " + address + " -p tcp -m tcp --dport 30000:32767 -j RETURN"),
				"-j MARK --set-xmark 0x0/0x4000",
			}},
			{Table: "nat", Name: "HOP-MASQ", Rules: []iptables.Rule{
				iptables.Rule(`-m comment --comment "kube-hop: a pod reaches itself" -m bpf --bytecode "` + same +
					`" -j MASQUERADE --random-fully`),
				"-j MASQUERADE --random-fully",
				"-j MASQUERADE",
			}},
			{Table: "filter", Name: "HOP-FILTER", Rules: []iptables.Rule{
				iptables.Rule("-m conntrack --ctstate NEW -m set --match-set " + SkeletonSet +
					" dst,dst -j REJECT --reject-with " + unreachable),
				"-m conntrack --ctstate INVALID -j DROP",
				"-m mark --mark 0x4000/0x4000 -j ACCEPT",
			}},
			{Table: "mangle", Name: "HOP-MANGLE", Rules: []iptables.Rule{"-i br0 -j MARK --set-xmark 0x1000/0x1000"}},
		},
		Jumps: []iptables.Jump{
			{Table: "nat", Chain: "PREROUTING", Rule: `-m comment --comment "kube-hop: Services" -j HOP-RULES`},
			{Table: "nat", Chain: "POSTROUTING", Rule: "-m set --match-set " + SkeletonSet + " dst,dst -j HOP-MASQ"},
			{Table: "filter", Chain: "INPUT", Rule: `-m conntrack --ctstate NEW -m comment --comment "kube-hop: guard" -j HOP-FILTER`},
			{Table: "mangle", Chain: "PREROUTING", Rule: "-j HOP-MANGLE"},
		},
	}
}

func testSkeleton(t *testing.T, e RulesEnv) {
	want := Skeleton(e.Family)
	mustSettle(t, e, want)
	for _, c := range want.Chains {
		wantRules(t, e, c.Table, c.Name, c.Rules...)
	}
	e.Other.Insert("nat", "POSTROUTING", 1, "-j RETURN")
	wantDifferences(t, e, want, "stands at place 2 instead of 1")
	mustSettle(t, e, want)
	if err := e.Rules.Remove(t.Context(), want); err != nil {
		t.Error(err)
	}
}
