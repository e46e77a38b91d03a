package iptablestest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/iptables"
)

// SetsEnv is a network namespace without sets, for one test.
type SetsEnv struct {
	Sets iptables.Sets
	// Use makes a rule refer to an existing set; release takes the rule away.
	Use func(t *testing.T, set iptables.Set) (release func())
}

// ConformanceSets holds an implementation of iptables.Sets against its contract. It calls open in the goroutine
// of each subtest, so that open may change the namespace of the thread.
func ConformanceSets(t *testing.T, open func(t *testing.T) SetsEnv) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, SetsEnv)
	}{
		{"absent sets", testAbsentSets},
		{"every type and family", testEveryType},
		{"many entries", testManyEntries},
		{"operations happen in order", testOrder},
		{"a bad entry stops no other", testBadEntries},
		{"a full set refuses the surplus only", testFull},
		{"a set grows with its entries", testGrow},
		{"a set grows while a rule uses it", testGrowInUse},
		{"a set of another type is an error", testTypeClash},
		{"names", testNames},
		{"a set in use stays", testInUse},
		{"sets of others are left alone", testForeignSets},
		{"an ended context fails the rest", testEndedContext},
		{"random operations", testRandomOps},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, open(t)) })
	}
}

func set(name string, typ iptables.SetType, f iptables.Family) iptables.Set {
	return iptables.Set{Name: name, Type: typ, Family: f, MaxElem: 65536}
}

// allKinds is one set of every type and family.
func allKinds() []iptables.Set {
	var out []iptables.Set
	for _, f := range []iptables.Family{iptables.IPv4, iptables.IPv6} {
		for i, typ := range []iptables.SetType{iptables.HashIPPort, iptables.HashNet, iptables.HashIPPortNet} {
			out = append(out, set(fmt.Sprintf("KIND-%d-%s", i, f), typ, f))
		}
	}
	return out
}

// entryOf returns the i-th entry that a set can hold, for i below 2^16.
func entryOf(s iptables.Set, i int) iptables.Entry {
	hi, lo := byte(i>>8), byte(i)
	addr := netip.AddrFrom4([4]byte{10, 96, hi, lo})
	source := netip.AddrFrom4([4]byte{192, 168, lo, 0})
	sourceBits := 24 + i%2*7
	if s.Family == iptables.IPv6 {
		addr = netip.AddrFrom16([16]byte{0: 0xfd, 1: hi, 14: hi, 15: lo})
		source = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 6: lo})
		sourceBits = 64 + i%2*63
	}
	whole := netip.PrefixFrom(addr, addr.BitLen())
	proto := []uint8{6, 17, 132}[i%3]
	switch s.Type {
	case iptables.HashIPPort:
		return iptables.Entry{Prefix: whole, Proto: proto, Port: uint16(i * 7)}
	case iptables.HashIPPortNet:
		return iptables.Entry{Prefix: whole, Proto: proto, Port: uint16(i), Net: netip.PrefixFrom(source, sourceBits)}
	case iptables.HashNet:
	}
	bits := whole.Bits() - i%2 // of two neighbours, one is an address and one a network
	return iptables.Entry{Prefix: netip.PrefixFrom(addr, bits).Masked()}
}

func adds(s iptables.Set, from, to int) []iptables.SetOp {
	var ops []iptables.SetOp
	for i := from; i < to; i++ {
		ops = append(ops, iptables.SetOp{Set: s.Name, Entry: entryOf(s, i)})
	}
	return ops
}

func dels(s iptables.Set, from, to int) []iptables.SetOp {
	ops := adds(s, from, to)
	for i := range ops {
		ops[i].Delete = true
	}
	return ops
}

func mustEnsure(t *testing.T, e SetsEnv, sets ...iptables.Set) {
	t.Helper()
	if err := e.Sets.Ensure(t.Context(), sets); err != nil {
		t.Fatal(err)
	}
}

func mustApply(t *testing.T, e SetsEnv, ops ...iptables.SetOp) {
	t.Helper()
	if failed := e.Sets.Apply(t.Context(), ops); failed != nil {
		t.Fatalf("%d of %d operations failed, the first: %v", len(failed), len(ops), failed[0])
	}
}

// wantDump compares the named sets with the entries that the operations add to them.
func wantDump(t *testing.T, e SetsEnv, sets []iptables.Set, ops ...iptables.SetOp) {
	t.Helper()
	want := iptables.SetState{}
	for _, s := range sets {
		want[s.Name] = map[iptables.Entry]struct{}{}
	}
	for _, op := range ops {
		want[op.Set][op.Entry] = struct{}{}
	}
	got, err := e.Sets.Dump(t.Context(), sets)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(printable(want), printable(got)); d != "" {
		t.Fatalf("sets differ (-want +got):\n%s", d)
	}
}

func printable(s iptables.SetState) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for name, entries := range s {
		out[name] = map[string]bool{}
		for e := range entries {
			out[name][e.String()] = true
		}
	}
	return out
}

func testAbsentSets(t *testing.T, e SetsEnv) {
	s := set("ABSENT", iptables.HashNet, iptables.IPv4)
	got, err := e.Sets.Dump(t.Context(), []iptables.Set{s})
	if err != nil || len(got) != 0 {
		t.Errorf("dump of an absent set: %v, %v", got, err)
	}
	if err := e.Sets.Destroy(t.Context(), []iptables.Set{s}); err != nil {
		t.Errorf("destroy an absent set: %v", err)
	}
	for _, n := range []int{1, 300} {
		if failed := e.Sets.Apply(t.Context(), dels(s, 0, n)); failed != nil {
			t.Errorf("delete %d entries from an absent set: %v", n, failed[0])
		}
		failed := e.Sets.Apply(t.Context(), adds(s, 0, n))
		if len(failed) != n || !errors.Is(failed[0], iptables.ErrNoSet) {
			t.Errorf("add %d entries to an absent set: %d failed: %v", n, len(failed), failed)
		}
	}
	if failed := e.Sets.Apply(t.Context(), nil); failed != nil {
		t.Errorf("apply nothing: %v", failed)
	}
}

func testEveryType(t *testing.T, e SetsEnv) {
	sets := allKinds()
	mustEnsure(t, e, sets...)
	var ops []iptables.SetOp
	for _, s := range sets {
		ops = append(ops, adds(s, 0, 7)...)
	}
	mustApply(t, e, ops...)
	wantDump(t, e, sets, ops...)
	mustApply(t, e, ops...) // adding the present succeeds
	mustEnsure(t, e, sets...)
	wantDump(t, e, sets, ops...)

	var left []iptables.SetOp
	for _, s := range sets {
		mustApply(t, e, dels(s, 2, 9)...) // deleting the absent succeeds
		left = append(left, adds(s, 0, 2)...)
	}
	wantDump(t, e, sets, left...)
	if err := e.Sets.Destroy(t.Context(), sets); err != nil {
		t.Fatal(err)
	}
	got, err := e.Sets.Dump(t.Context(), sets)
	if err != nil || len(got) != 0 {
		t.Errorf("after destroy: %v, %v", got, err)
	}
}

func testManyEntries(t *testing.T, e SetsEnv) {
	for _, s := range allKinds() {
		mustEnsure(t, e, s)
		ops := adds(s, 0, 3000)
		mustApply(t, e, ops...)
		wantDump(t, e, []iptables.Set{s}, ops...)
		wantCount(t, e, s, 3000)
		mustApply(t, e, dels(s, 100, 3000)...)
		wantDump(t, e, []iptables.Set{s}, adds(s, 0, 100)...)
		wantCount(t, e, s, 100)
	}
}

func wantCount(t *testing.T, e SetsEnv, s iptables.Set, want int) {
	t.Helper()
	absent := s
	absent.Name = "ABSENT"
	got, err := e.Sets.Count(t.Context(), []iptables.Set{absent, s})
	if err != nil || len(got) != 1 || got[s.Name] != want {
		t.Errorf("count is %v, %v, want %d", got, err, want)
	}
}

func testOrder(t *testing.T, e SetsEnv) {
	a := set("A", iptables.HashIPPort, iptables.IPv4)
	b := set("B", iptables.HashNet, iptables.IPv6)
	mustEnsure(t, e, a, b)
	one := adds(a, 0, 1)[0]
	gone := dels(a, 0, 1)[0]
	other := adds(b, 0, 1)[0]
	mustApply(t, e, one, gone, other, one)
	wantDump(t, e, []iptables.Set{a, b}, one, other)
	mustApply(t, e, gone, one, gone)
	wantDump(t, e, []iptables.Set{a, b}, other)
}

// badEntries returns entries that the set cannot hold: malformed ones, and those made for the other sets.
func badEntries(s iptables.Set) []iptables.Entry {
	bad := []iptables.Entry{{}}
	for _, other := range allKinds() {
		if other.Type != s.Type || other.Family != s.Family {
			bad = append(bad, entryOf(other, 1), entryOf(other, 2))
		}
	}
	zero := netip.MustParsePrefix("0.0.0.0/0")
	if s.Family == iptables.IPv6 {
		zero = netip.MustParsePrefix("::/0")
	}
	e := entryOf(s, 1)
	switch s.Type {
	case iptables.HashNet:
		e.Prefix = zero
	case iptables.HashIPPortNet:
		e.Net = zero
	case iptables.HashIPPort:
		e.Prefix = netip.PrefixFrom(e.Prefix.Addr(), e.Prefix.Bits()-8).Masked()
	}
	return append(bad, e)
}

func testBadEntries(t *testing.T, e SetsEnv) {
	for _, s := range allKinds() {
		mustEnsure(t, e, s)
		good := adds(s, 0, 600)
		var ops []iptables.SetOp
		bad := badEntries(s)
		for i, op := range good {
			if i%60 == 30 || i >= 597 {
				ops = append(ops, iptables.SetOp{Set: s.Name, Entry: bad[i%len(bad)]})
			}
			ops = append(ops, op)
		}
		failed := e.Sets.Apply(t.Context(), ops)
		if want := len(ops) - len(good); len(failed) != want {
			t.Fatalf("%s %s: %d operations failed, want %d: %v", s.Type, s.Family, len(failed), want, failed)
		}
		for _, f := range failed {
			if f.Op.Entry.Check() == nil && f.Op.Entry.Type() == s.Type && f.Op.Entry.Family() == s.Family {
				t.Errorf("%s %s: failed without reason: %v", s.Type, s.Family, f)
			}
			if !errors.Is(f, iptables.ErrEntry) {
				t.Errorf("%s %s: not an ErrEntry: %v", s.Type, s.Family, f)
			}
		}
		wantDump(t, e, []iptables.Set{s}, good...)
	}
}

func testFull(t *testing.T, e SetsEnv) {
	s := set("SMALL", iptables.HashIPPort, iptables.IPv4)
	s.MaxElem = 10
	mustEnsure(t, e, s)
	ops := adds(s, 0, 15)
	failed := e.Sets.Apply(t.Context(), ops)
	if len(failed) != 5 {
		t.Fatalf("%d operations failed, want 5: %v", len(failed), failed)
	}
	for i, f := range failed {
		if f.Op != ops[10+i] || !errors.Is(f, iptables.ErrSetFull) || !strings.Contains(f.Error(), "SMALL") {
			t.Errorf("failure %d: %v", i, f)
		}
	}
	wantDump(t, e, []iptables.Set{s}, ops[:10]...)
	mustApply(t, e, ops[:10]...) // the present still succeed
	mustApply(t, e, dels(s, 0, 1)[0], ops[14])
	wantDump(t, e, []iptables.Set{s}, append(ops[1:10:10], ops[14])...)
}

func testEndedContext(t *testing.T, e SetsEnv) {
	s := set("A", iptables.HashIPPort, iptables.IPv4)
	mustEnsure(t, e, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	failed := e.Sets.Apply(ctx, adds(s, 0, 3))
	if len(failed) != 3 || !errors.Is(failed[2], context.Canceled) {
		t.Errorf("apply: %v", failed)
	}
	if err := e.Sets.Ensure(ctx, []iptables.Set{set("B", iptables.HashNet, iptables.IPv4)}); !errors.Is(err, context.Canceled) {
		t.Errorf("ensure: %v", err)
	}
	if _, err := e.Sets.Dump(ctx, []iptables.Set{s}); !errors.Is(err, context.Canceled) {
		t.Errorf("dump: %v", err)
	}
	if err := e.Sets.Destroy(ctx, []iptables.Set{s}); !errors.Is(err, context.Canceled) {
		t.Errorf("destroy: %v", err)
	}
	wantDump(t, e, []iptables.Set{s})
}
