package iptablestest

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
)

func testGrow(t *testing.T, e SetsEnv) {
	for _, s := range allKinds() {
		s.MaxElem = 600
		mustEnsure(t, e, s)
		ops := adds(s, 0, 600)
		mustApply(t, e, ops...)
		larger, smaller := s, s
		larger.MaxElem, smaller.MaxElem = 700, 5
		mustEnsure(t, e, larger)
		wantDump(t, e, []iptables.Set{s}, ops...)
		more := adds(s, 600, 650)
		mustApply(t, e, more...)
		mustEnsure(t, e, smaller) // never shrinks
		mustApply(t, e, adds(s, 650, 660)...)
		wantDump(t, e, []iptables.Set{s}, adds(s, 0, 660)...)
	}
}

func testGrowInUse(t *testing.T, e SetsEnv) {
	s := set("USED", iptables.HashIPPort, iptables.IPv4)
	s.MaxElem = 5
	mustEnsure(t, e, s)
	mustApply(t, e, adds(s, 0, 5)...)
	release := e.Use(t, s)
	s.MaxElem = 50
	mustEnsure(t, e, s)
	mustApply(t, e, adds(s, 5, 50)...)
	wantDump(t, e, []iptables.Set{s}, adds(s, 0, 50)...)
	if err := e.Sets.Destroy(t.Context(), []iptables.Set{s}); !errors.Is(err, iptables.ErrSetInUse) {
		t.Errorf("the rule lost the set: destroy gives %v", err)
	}
	release()
	if err := e.Sets.Destroy(t.Context(), []iptables.Set{s}); err != nil {
		t.Error(err)
	}
}

func testTypeClash(t *testing.T, e SetsEnv) {
	a := set("A", iptables.HashNet, iptables.IPv4)
	b := set("B", iptables.HashNet, iptables.IPv4)
	mustEnsure(t, e, a, b)
	entries := append(adds(a, 0, 3), adds(b, 0, 3)...)
	mustApply(t, e, entries...)
	otherType, otherFamily := a, b
	otherType.Type = iptables.HashIPPort
	otherFamily.Family = iptables.IPv6
	c := set("C", iptables.HashNet, iptables.IPv4)
	err := e.Sets.Ensure(t.Context(), []iptables.Set{otherType, otherFamily, c})
	if !errors.Is(err, iptables.ErrSetType) {
		t.Fatalf("want ErrSetType, got %v", err)
	}
	if n := strings.Count(err.Error(), iptables.ErrSetType.Error()); n != 2 {
		t.Errorf("%d errors instead of 2: %v", n, err)
	}
	wantDump(t, e, []iptables.Set{a, b, c}, entries...) // c is there all the same
}

func testNames(t *testing.T, e SetsEnv) {
	longest := set(strings.Repeat("N", 31), iptables.HashNet, iptables.IPv4)
	longest.MaxElem = 2
	mustEnsure(t, e, longest)
	longest.MaxElem = 20
	mustEnsure(t, e, longest)
	for _, name := range []string{"", strings.Repeat("N", 32)} {
		if err := e.Sets.Ensure(t.Context(), []iptables.Set{set(name, iptables.HashNet, iptables.IPv4)}); err == nil {
			t.Errorf("a set with %d characters was created", len(name))
		}
	}
	wantDump(t, e, []iptables.Set{longest})
}

func testInUse(t *testing.T, e SetsEnv) {
	a, b := set("A", iptables.HashNet, iptables.IPv6), set("B", iptables.HashNet, iptables.IPv6)
	mustEnsure(t, e, a, b)
	mustApply(t, e, adds(a, 0, 3)...)
	release := e.Use(t, a)
	err := e.Sets.Destroy(t.Context(), []iptables.Set{a, b})
	if !errors.Is(err, iptables.ErrSetInUse) || !strings.Contains(err.Error(), "destroy A") {
		t.Errorf("want ErrSetInUse for A, got %v", err)
	}
	wantDump(t, e, []iptables.Set{a}, adds(a, 0, 3)...)
	got, err := e.Sets.Dump(t.Context(), []iptables.Set{b})
	if err != nil || len(got) != 0 {
		t.Errorf("B was not destroyed: %v, %v", got, err)
	}
	release()
	if err := e.Sets.Destroy(t.Context(), []iptables.Set{a, b}); err != nil {
		t.Error(err)
	}
}

func testForeignSets(t *testing.T, e SetsEnv) {
	foreign := set("FOREIGN", iptables.HashIPPort, iptables.IPv4)
	ours := set("OURS", iptables.HashIPPort, iptables.IPv4)
	ours.MaxElem = 10
	mustEnsure(t, e, foreign, ours)
	mustApply(t, e, adds(foreign, 0, 9)...)
	ours.MaxElem = 20
	mustEnsure(t, e, ours)
	mustApply(t, e, append(adds(ours, 0, 9), dels(ours, 3, 5)...)...)
	if err := e.Sets.Destroy(t.Context(), []iptables.Set{ours}); err != nil {
		t.Fatal(err)
	}
	wantDump(t, e, []iptables.Set{foreign}, adds(foreign, 0, 9)...)
}

// testRandomOps compares with the simplest possible model: what is in after each step, and what must have failed.
func testRandomOps(t *testing.T, e SetsEnv) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	kinds := allKinds()
	have := iptables.SetState{}
	for range 150 {
		s := kinds[r.IntN(len(kinds))]
		switch n := r.IntN(10); {
		case n == 0:
			if err := e.Sets.Destroy(t.Context(), []iptables.Set{s}); err != nil {
				t.Fatal(err)
			}
			delete(have, s.Name)
		case n <= 2:
			s.MaxElem = 1000 + uint32(r.IntN(1000))
			mustEnsure(t, e, s)
			if have[s.Name] == nil {
				have[s.Name] = map[iptables.Entry]struct{}{}
			}
		default:
			randomApply(t, e, r, have)
		}
		got, err := e.Sets.Dump(t.Context(), kinds)
		if err != nil {
			t.Fatal(err)
		}
		if !sameState(got, have) {
			t.Fatalf("sets differ:\nwant %v\ngot  %v", printable(have), printable(got))
		}
	}
}

func sameState(a, b iptables.SetState) bool {
	if len(a) != len(b) {
		return false
	}
	for name, entries := range a {
		other, ok := b[name]
		if !ok || len(entries) != len(other) {
			return false
		}
		for e := range entries {
			if _, ok := other[e]; !ok {
				return false
			}
		}
	}
	return true
}

// randomApply applies a random list of operations, in runs of one set and verb as real ones come, and keeps the
// model up to date.
func randomApply(t *testing.T, e SetsEnv, r *rand.Rand, have iptables.SetState) {
	t.Helper()
	var ops, refused []iptables.SetOp
	kinds := allKinds()
	for range 1 + r.IntN(4) {
		s := kinds[r.IntN(len(kinds))]
		bad := badEntries(s)
		del := r.IntN(2) == 0
		for range r.IntN(30) {
			op := iptables.SetOp{Set: s.Name, Delete: del, Entry: entryOf(s, r.IntN(100))}
			if r.IntN(20) == 0 {
				op.Entry = bad[r.IntN(len(bad))]
			}
			ops = append(ops, op)
			_, exists := have[s.Name]
			switch {
			case op.Entry.Check() != nil, !exists && !del, exists && misfit(op.Entry, s):
				refused = append(refused, op)
			case exists && del:
				delete(have[s.Name], op.Entry)
			case exists:
				have[s.Name][op.Entry] = struct{}{}
			}
		}
	}
	failed := e.Sets.Apply(t.Context(), ops)
	for i := range max(len(failed), len(refused)) {
		if i >= len(failed) || i >= len(refused) || failed[i].Op != refused[i] {
			t.Fatalf("failures differ from the %dth on:\nwant %v\ngot  %v\nof   %v", i, refused, failed, ops)
		}
	}
}

func misfit(e iptables.Entry, s iptables.Set) bool {
	return e.Type() != s.Type || e.Family() != s.Family
}
