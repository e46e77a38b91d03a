package iptablestest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
)

// RulesEnv is a network namespace without rules, for one test.
type RulesEnv struct {
	Family iptables.Family
	Rules  iptables.Rules
	Other  Other
}

// Other is another program that works on the same tables; its failures end the test. FakeRules is one.
type Other interface {
	NewChain(table, chain string)
	Insert(table, chain string, place int, r iptables.Rule)
	Delete(table, chain string, r iptables.Rule)
	Flush(table string)
	// List returns the rules of a chain and whether it is there.
	List(table, chain string) ([]iptables.Rule, bool)
}

// ConformanceRules holds an implementation of iptables.Rules against its contract. It calls open in the goroutine
// of each subtest, so that open may change the namespace of the thread.
func ConformanceRules(t *testing.T, open func(t *testing.T) RulesEnv) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, RulesEnv)
	}{
		{"nothing there", testNothingThere},
		{"apply, change, remove", testApply},
		{"every rule of the skeleton", testSkeleton},
		{"a jump that is displaced moves back", testDisplaced},
		{"a jump that is doubled is single again", testDoubled},
		{"a jump that is missing comes back in order", testMissingJump},
		{"a chain that was changed is restored", testChangedChain},
		{"a flushed table is repaired", testFlushed},
		{"rules and chains of others are left alone", testForeignRules},
		{"a chain that others refer to stays, empty", testReferred},
		{"a table that is refused stays, the others follow", testRefusedTable},
		{"the last table is refused", testRefusedLast},
		{"an ended context", testRulesEndedContext},
		{"random disturbances", testDisturbances},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, open(t)) })
	}
}

func ruleset(f iptables.Family) iptables.Ruleset {
	return iptables.Ruleset{
		Family: f,
		Chains: []iptables.Chain{
			{Table: "nat", Name: "HOP-SERVICES", Rules: []iptables.Rule{
				`-m comment --comment "kube-hop: to mark" -m mark ! --mark 0x4000/0x4000 -j HOP-MARK`, "-j RETURN",
			}},
			{Table: "nat", Name: "HOP-MARK", Rules: []iptables.Rule{"-j MARK --set-xmark 0x4000/0x4000"}},
			{Table: "nat", Name: "HOP-EMPTY"},
			{Table: "filter", Name: "HOP-SERVICES", Rules: []iptables.Rule{"-m conntrack --ctstate NEW -j DROP"}},
		},
		Jumps: []iptables.Jump{
			{Table: "nat", Chain: "PREROUTING", Rule: `-m comment --comment "kube-hop: first" -j HOP-SERVICES`},
			{Table: "nat", Chain: "PREROUTING", Rule: "-j HOP-EMPTY"},
			{Table: "nat", Chain: "OUTPUT", Rule: "-j HOP-SERVICES"},
			{Table: "filter", Chain: "INPUT", Rule: "-j HOP-SERVICES"},
		},
	}
}

// mustSettle applies and finds no difference.
func mustSettle(t *testing.T, e RulesEnv, want iptables.Ruleset) {
	t.Helper()
	if err := e.Rules.Apply(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if d := differences(t, e, want); len(d) > 0 {
		t.Fatalf("after apply:\n%s", strings.Join(d, "\n"))
	}
}

func differences(t *testing.T, e RulesEnv, want iptables.Ruleset) []string {
	t.Helper()
	d, err := e.Rules.Check(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantDifferences expects one line with each of the texts, in this order.
func wantDifferences(t *testing.T, e RulesEnv, want iptables.Ruleset, texts ...string) {
	t.Helper()
	got := differences(t, e, want)
	if len(got) != len(texts) {
		t.Fatalf("want %d differences, got:\n%s", len(texts), strings.Join(got, "\n"))
	}
	for i, text := range texts {
		if !strings.Contains(got[i], text) {
			t.Errorf("want %q in difference %q", text, got[i])
		}
	}
}

// wantRules expects exactly these rules in a chain.
func wantRules(t *testing.T, e RulesEnv, table, chain string, want ...iptables.Rule) {
	t.Helper()
	got, ok := e.Other.List(table, chain)
	same := ok && len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = iptables.Canonical(got[i]) == iptables.Canonical(want[i])
	}
	if !same {
		t.Errorf("%s %s: there %v:\n got %q\nwant %q", table, chain, ok, got, want)
	}
}

func wantNoChain(t *testing.T, e RulesEnv, table, chain string) {
	t.Helper()
	if rules, ok := e.Other.List(table, chain); ok {
		t.Errorf("%s %s is still there: %q", table, chain, rules)
	}
}

func testNothingThere(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	wantDifferences(t, e, want, "HOP-SERVICES is missing", "HOP-MARK is missing", "HOP-EMPTY is missing",
		"filter: chain HOP-SERVICES is missing", "is missing", "is missing", "OUTPUT", "INPUT")
	if err := e.Rules.Remove(t.Context(), want); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	mustSettle(t, e, iptables.Ruleset{Family: e.Family})
}

func testApply(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	mustSettle(t, e, want)
	wantRules(t, e, "nat", "PREROUTING", want.Jumps[0].Rule, want.Jumps[1].Rule)
	wantRules(t, e, "nat", "HOP-SERVICES", want.Chains[0].Rules...)
	wantRules(t, e, "nat", "HOP-EMPTY")

	changed := ruleset(e.Family)
	changed.Chains[1].Rules = []iptables.Rule{"-j RETURN"}
	changed.Chains[2].Rules = []iptables.Rule{"-m comment --comment more -j HOP-MARK"}
	wantDifferences(t, e, changed, "HOP-MARK", "HOP-EMPTY")
	mustSettle(t, e, changed)
	wantRules(t, e, "nat", "HOP-MARK", "-j RETURN")

	if err := e.Rules.Remove(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	wantRules(t, e, "nat", "PREROUTING")
	for _, c := range want.Chains {
		wantNoChain(t, e, c.Table, c.Name)
	}
	if err := e.Rules.Remove(t.Context(), want); err != nil {
		t.Errorf("remove again: %v", err)
	}
	mustSettle(t, e, want)
}

func testDisplaced(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	const foreign = "-m comment --comment foreign -j ACCEPT"
	e.Other.Insert("nat", "PREROUTING", 1, foreign)
	wantDifferences(t, e, want, "stands at place 2 instead of 1", "stands at place 3 instead of 2")
	mustSettle(t, e, want)
	wantRules(t, e, "nat", "PREROUTING", want.Jumps[0].Rule, want.Jumps[1].Rule, foreign)
	e.Other.Insert("nat", "PREROUTING", 2, foreign)
	wantDifferences(t, e, want, "stands at place 3 instead of 2")
	mustSettle(t, e, want)
	wantRules(t, e, "nat", "PREROUTING", want.Jumps[0].Rule, want.Jumps[1].Rule, foreign, foreign)
}

func testDoubled(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	const foreign = "-m comment --comment foreign -j ACCEPT"
	e.Other.Insert("nat", "PREROUTING", 3, foreign)
	e.Other.Insert("nat", "PREROUTING", 4, want.Jumps[0].Rule)
	e.Other.Insert("nat", "PREROUTING", 5, want.Jumps[0].Rule)
	wantDifferences(t, e, want, "is there 3 times")
	mustSettle(t, e, want)
	wantRules(t, e, "nat", "PREROUTING", want.Jumps[0].Rule, want.Jumps[1].Rule, foreign)
	e.Other.Insert("nat", "PREROUTING", 1, want.Jumps[1].Rule)
	if err := e.Rules.Remove(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	wantRules(t, e, "nat", "PREROUTING", foreign)
}

func testMissingJump(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	for i := range 2 {
		e.Other.Delete("nat", "PREROUTING", want.Jumps[i].Rule)
		if d := differences(t, e, want); len(d) == 0 || !strings.Contains(d[0]+d[len(d)-1], "is missing") {
			t.Errorf("differences %q", d)
		}
		mustSettle(t, e, want)
		wantRules(t, e, "nat", "PREROUTING", want.Jumps[0].Rule, want.Jumps[1].Rule)
	}
}

func testChangedChain(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	e.Other.Insert("nat", "HOP-SERVICES", 2, "-j ACCEPT")
	wantDifferences(t, e, want, "nat: chain HOP-SERVICES: rule 2")
	mustSettle(t, e, want)
	e.Other.Delete("nat", "HOP-MARK", want.Chains[1].Rules[0])
	e.Other.Insert("nat", "HOP-EMPTY", 1, "-j RETURN")
	wantDifferences(t, e, want, "HOP-MARK: rule 1 is missing", "HOP-EMPTY: rule 1 is too many")
	mustSettle(t, e, want)
}

func testFlushed(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	e.Other.Flush("nat")
	wantDifferences(t, e, want, "HOP-SERVICES: rule 1 is missing", "HOP-MARK: rule 1 is missing",
		"PREROUTING", "PREROUTING", "OUTPUT")
	mustSettle(t, e, want)
}

func testForeignRules(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	e.Other.NewChain("nat", "FOREIGN")
	e.Other.Insert("nat", "FOREIGN", 1, "-j RETURN")
	e.Other.Insert("nat", "PREROUTING", 1, "-j FOREIGN")
	e.Other.Insert("nat", "POSTROUTING", 1, "-j MASQUERADE")
	e.Other.NewChain("mangle", "HOP-SERVICES") // the name is ours in other tables only
	foreign := func() {
		t.Helper()
		wantRules(t, e, "nat", "FOREIGN", "-j RETURN")
		wantRules(t, e, "nat", "POSTROUTING", "-j MASQUERADE")
		wantRules(t, e, "mangle", "HOP-SERVICES")
	}
	mustSettle(t, e, want)
	foreign()
	wantRules(t, e, "nat", "PREROUTING", want.Jumps[0].Rule, want.Jumps[1].Rule, "-j FOREIGN")
	if err := e.Rules.Remove(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	foreign()
	wantRules(t, e, "nat", "PREROUTING", "-j FOREIGN")
}

func testReferred(t *testing.T, e RulesEnv) {
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	const foreign = "-m comment --comment foreign -j HOP-MARK"
	e.Other.Insert("nat", "POSTROUTING", 1, foreign)
	err := e.Rules.Remove(t.Context(), want)
	if !errors.Is(err, iptables.ErrChainInUse) || !strings.Contains(err.Error(), "HOP-MARK") {
		t.Errorf("want ErrChainInUse for HOP-MARK, got %v", err)
	}
	wantRules(t, e, "nat", "HOP-MARK")
	wantRules(t, e, "nat", "POSTROUTING", foreign)
	wantNoChain(t, e, "nat", "HOP-SERVICES")
	wantNoChain(t, e, "filter", "HOP-SERVICES")
	e.Other.Delete("nat", "POSTROUTING", foreign)
	if err := e.Rules.Remove(t.Context(), want); err != nil {
		t.Error(err)
	}
	wantNoChain(t, e, "nat", "HOP-MARK")
}

func testRefusedTable(t *testing.T, e RulesEnv) {
	good := ruleset(e.Family)
	mustSettle(t, e, good)
	bad := ruleset(e.Family)
	bad.Chains[0].Rules = []iptables.Rule{"-j RETURN", "-j NO-SUCH-CHAIN"}
	bad.Chains[3].Rules = []iptables.Rule{"-j ACCEPT"}
	err := e.Rules.Apply(t.Context(), bad)
	if err == nil || !strings.Contains(err.Error(), "nat") || !strings.Contains(err.Error(), "NO-SUCH-CHAIN") {
		t.Errorf("the error names neither table nor rule: %v", err)
	}
	wantRules(t, e, "nat", "HOP-SERVICES", good.Chains[0].Rules...)
	wantRules(t, e, "filter", "HOP-SERVICES", "-j ACCEPT")
	bad.Chains[0].Rules = []iptables.Rule{"-j RETURN\n-A INPUT -j DROP"}
	if err := e.Rules.Apply(t.Context(), bad); err == nil {
		t.Error("a rule of two lines was taken")
	}
	wantRules(t, e, "nat", "HOP-SERVICES", good.Chains[0].Rules...)
}

// testRefusedLast: what is done before the refusal is done once.
func testRefusedLast(t *testing.T, e RulesEnv) {
	bad := ruleset(e.Family)
	bad.Chains[3].Rules = []iptables.Rule{"-j NO-SUCH-CHAIN"}
	if err := e.Rules.Apply(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "filter") || strings.Contains(err.Error(), "nat") {
		t.Errorf("the error names another table: %v", err)
	}
	wantRules(t, e, "nat", "PREROUTING", bad.Jumps[0].Rule, bad.Jumps[1].Rule)
	wantRules(t, e, "nat", "OUTPUT", bad.Jumps[2].Rule)
	wantNoChain(t, e, "filter", "HOP-SERVICES")
}

func testRulesEndedContext(t *testing.T, e RulesEnv) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want := ruleset(e.Family)
	_, err := e.Rules.Check(ctx, want)
	for _, err := range []error{err, e.Rules.Apply(ctx, want), e.Rules.Remove(ctx, want)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	wantNoChain(t, e, "nat", "HOP-SERVICES")
}

// testDisturbances lets another program do damage at random, after which one Apply must be enough, and must keep
// what that program put there for itself.
func testDisturbances(t *testing.T, e RulesEnv) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	want := ruleset(e.Family)
	mustSettle(t, e, want)
	const foreign = "-m comment --comment foreign -j RETURN"
	there := 0 // foreign rules in PREROUTING
	for range 12 {
		for range 1 + r.IntN(3) {
			jump := want.Jumps[r.IntN(len(want.Jumps))]
			rules, _ := e.Other.List(jump.Table, jump.Chain)
			switch place := 1 + r.IntN(len(rules)+1); r.IntN(5) {
			case 0:
				e.Other.Insert("nat", "PREROUTING", 1+r.IntN(there+1), foreign)
				there++
			case 1:
				e.Other.Insert(jump.Table, jump.Chain, place, jump.Rule)
			case 2:
				if len(rules) > there { // one at least is ours
					e.Other.Delete(jump.Table, jump.Chain, firstOurs(rules, foreign))
				}
			case 3:
				e.Other.Insert("nat", "HOP-MARK", 1, "-j ACCEPT")
			case 4:
				e.Other.Flush("filter")
			}
		}
		mustSettle(t, e, want)
		after, _ := e.Other.List("nat", "PREROUTING")
		if len(after) != there+2 {
			t.Fatalf("%d rules of others became %d: %q", there, len(after)-2, after)
		}
	}
}

func firstOurs(rules []iptables.Rule, foreign iptables.Rule) iptables.Rule {
	for _, r := range rules {
		if iptables.Canonical(r) != iptables.Canonical(foreign) {
			return r
		}
	}
	return foreign
}
