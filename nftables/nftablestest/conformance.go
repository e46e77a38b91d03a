package nftablestest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kube-hop/kube-hop/nftables"
)

// Conformance holds an implementation of nftables.Tables against its contract. It calls open in the goroutine of each
// subtest, so that open may change the namespace of the thread; there are no tables in it yet.
func Conformance(t *testing.T, open func(t *testing.T) nftables.Tables) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, env)
	}{
		{"absent tables", testAbsent},
		{"tables are made once", testEnsure},
		{"what differs is repaired", testRepair},
		{"a chain is there while it is needed", testChains},
		{"a set of another type is made anew", testSetType},
		{"every kind of element", testElements},
		{"many elements", testMany},
		{"a map replaces a mark", testReplace},
		{"operations happen in order", testOrder},
		{"a bad element stops no other", testBad},
		{"one element is looked for", testHolds},
		{"tables of others are left alone", testForeign},
		{"an ended context fails the rest", testEnded},
		{"every change counts", testGeneration},
		{"random operations", testRandom},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, env{open(t)}) })
	}
}

type env struct{ nftables.Tables }

// op returns the i-th operation that adds to a set, for i below 2^16.
func op(t nftables.Table, s nftables.Set, i int) nftables.Op {
	hi, lo := byte(i>>8), byte(i)
	k := nftables.Key{Addr: netip.AddrFrom4([4]byte{10, 96, hi, lo}), Proto: []uint8{6, 17, 132}[i%3], Port: uint16(i * 7)} //nolint:gosec // below 2^19
	if t.Family == nftables.IPv6 {
		k.Addr = netip.AddrFrom16([16]byte{0: 0xfd, 1: hi, 14: hi, 15: lo})
	}
	switch s.Key {
	case nftables.PacketMark:
		k = nftables.Key{Mark: uint32(i + 1)} //nolint:gosec // small
	case nftables.Addr:
		k = nftables.Key{Addr: k.Addr}
	case nftables.AddrProtoPort, nftables.AddrPort, nftables.AddrPorts:
	}
	o := nftables.Op{Set: t.ID(s.Name), Key: k}
	if s.Value != 0 {
		o.Mark = 0x6b800000 + uint32(i) //nolint:gosec // small
	}
	return o
}

func ops(t nftables.Table, s nftables.Set, from, to int) []nftables.Op {
	var out []nftables.Op
	for i := from; i < to; i++ {
		out = append(out, op(t, s, i))
	}
	return out
}

// gone returns the operations that delete what the given ones add.
func gone(of []nftables.Op) []nftables.Op {
	out := append([]nftables.Op(nil), of...)
	for i := range out {
		out[i].Delete = true
	}
	return out
}

func (e env) mustEnsure(t *testing.T, want ...nftables.Table) []string {
	t.Helper()
	lines, err := e.Ensure(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// settled fails the test if the tables are not as wanted.
func (e env) settled(t *testing.T, want ...nftables.Table) {
	t.Helper()
	if lines := e.mustEnsure(t, want...); len(lines) > 0 {
		t.Errorf("ensured once more, and still there was to do: %q", lines)
	}
}

func (e env) mustApply(t *testing.T, ops ...nftables.Op) {
	t.Helper()
	if failed := e.Apply(t.Context(), ops); failed != nil {
		t.Fatalf("%d of %d operations failed, the first: %v", len(failed), len(ops), failed[0])
	}
}

// wantElements compares the elements of all sets of the tables with those that the operations add.
func (e env) wantElements(t *testing.T, of []nftables.Table, added ...nftables.Op) {
	t.Helper()
	want := map[string]bool{}
	for _, o := range added {
		want[o.String()] = true
	}
	got := map[string]bool{}
	state, err := e.Dump(t.Context(), of)
	if err != nil {
		t.Fatal(err)
	}
	for set, elements := range state {
		for k, mark := range elements {
			got[nftables.Op{Set: set, Key: k, Mark: mark}.String()] = true
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("elements differ (-want +got):\n%s", d)
	}
}

func testAbsent(t *testing.T, e env) {
	all := skeletons()
	if state, err := e.Dump(t.Context(), all); err != nil || len(state) != 0 {
		t.Errorf("dump: %v, %v", state, err)
	}
	if err := e.Remove(t.Context(), all); err != nil {
		t.Errorf("remove: %v", err)
	}
	for _, n := range []int{1, 300} {
		o := ops(all[0], all[0].Sets[0], 0, n)
		if failed := e.Apply(t.Context(), gone(o)); failed != nil {
			t.Errorf("delete from an absent set: %v", failed[0])
		}
		failed := e.Apply(t.Context(), o)
		if len(failed) != n || !errors.Is(failed[0], nftables.ErrNoSet) {
			t.Errorf("add %d to an absent set: %d failed: %v", n, len(failed), failed)
		}
	}
	if failed := e.Apply(t.Context(), nil); failed != nil {
		t.Errorf("apply nothing: %v", failed)
	}
}

func testEnsure(t *testing.T, e env) {
	all := skeletons()
	if lines := e.mustEnsure(t, all...); len(lines) != 26 {
		t.Errorf("made: %q, want 15 sets and 11 chains", lines)
	}
	o := append(ops(all[0], all[0].Sets[0], 0, 5), ops(all[2], all[2].Sets[0], 0, 3)...)
	e.mustApply(t, o...)
	e.settled(t, all...)
	e.wantElements(t, all, o...)
	if err := e.Remove(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	e.wantElements(t, all)
	if lines := e.mustEnsure(t, all...); len(lines) != 26 {
		t.Errorf("made again: %q", lines)
	}
}

func testRepair(t *testing.T, e env) {
	for _, tc := range []struct {
		name   string
		damage func(*nftables.Table)
		line   string
	}{
		{"rules gone", func(x *nftables.Table) { x.Chains[0].Rules = nil }, "chain in has other rules"},
		{"rule gone", func(x *nftables.Table) { x.Chains[0].Rules = x.Chains[0].Rules[1:] }, "chain in has other rules"},
		{"rule more", func(x *nftables.Table) { x.Chains[2].Rules = x.Chains[1].Rules }, "chain out has other rules"},
		{"other order", func(x *nftables.Table) {
			r := x.Chains[0].Rules
			x.Chains[0].Rules = append([]nftables.Rule{r[1], r[0]}, r[2:]...)
		}, "chain in has other rules"},
		{"priority", func(x *nftables.Table) { x.Chains[1].Priority = 5 }, "chain fwd is at another hook or priority"},
		{"type", func(x *nftables.Table) {
			x.Chains[2] = nftables.Chain{Name: "out", Hook: nftables.Output, Priority: -99, NAT: true}
		}, "chain out is at another hook or priority, or of another type"},
		{"hook", func(x *nftables.Table) { x.Chains[0].Hook = nftables.Output }, "chain in is at another hook or priority"},
	} {
		want, other := Skeleton(nftables.IPv4), Skeleton(nftables.IPv4)
		e.mustEnsure(t, want)
		o := ops(want, want.Sets[1], 0, 3)
		e.mustApply(t, o...)
		tc.damage(&other)
		e.mustEnsure(t, other)
		if lines := e.mustEnsure(t, want); len(lines) != 1 || !strings.Contains(lines[0], tc.line) {
			t.Errorf("%s: repaired %q, want one line %q", tc.name, lines, tc.line)
		}
		e.settled(t, want)
		e.wantElements(t, []nftables.Table{want}, o...)
	}
}

// testChains: chains come and go with what needs them, and the elements stay.
func testChains(t *testing.T, e env) {
	less, more := Skeleton(nftables.IPv4), Skeleton(nftables.IPv4)
	less.Chains = less.Chains[:2]
	open, damaged := Skeleton(nftables.IPv4), Skeleton(nftables.IPv4)
	for i := range open.Chains[2:] {
		open.Chains[2+i].IfThere = true
	}
	damaged.Chains[3].Rules = damaged.Chains[3].Rules[1:]
	e.mustEnsure(t, less)
	o := ops(less, less.Sets[1], 0, 3)
	e.mustApply(t, o...)
	for _, step := range []struct {
		what  string
		want  nftables.Table
		lines []string
	}{
		{"not known whether they are needed, and not there", open, nil},
		{"needed", more, []string{"chain out is missing", "chain after is missing", "chain nat is missing"}},
		{"not known whether they are needed, and there", open, nil},
		{"damaged", damaged, []string{"chain after has other rules"}},
		{"not known whether it is needed, and damaged", open, []string{"chain after has other rules"}},
		{"still there", more, nil},
		{"not needed", less, []string{"chain after is not needed", "chain nat is not needed", "chain out is not needed"}},
	} {
		got := e.mustEnsure(t, step.want)
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "ip hop-test: ")
		}
		if d := cmp.Diff(step.lines, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, d)
		}
		e.settled(t, step.want)
		e.wantElements(t, []nftables.Table{less}, o...)
	}
}

func testSetType(t *testing.T, e env) {
	want, other := Skeleton(nftables.IPv4), Skeleton(nftables.IPv4)
	other.Sets[2].Key = nftables.Addr
	e.mustEnsure(t, other)
	e.mustApply(t, ops(other, other.Sets[0], 0, 3)...)
	lines := e.mustEnsure(t, want)
	if len(lines) == 0 || !strings.Contains(lines[0], "set marks has another type") {
		t.Errorf("repaired: %q", lines)
	}
	e.settled(t, want)
	e.wantElements(t, []nftables.Table{want})
	e.mustApply(t, op(want, want.Sets[2], 1))
}

// eachSet runs a test for every set of the skeletons.
func (e env) eachSet(t *testing.T, test func(nftables.Table, nftables.Set)) {
	t.Helper()
	e.mustEnsure(t, skeletons()...)
	for _, table := range skeletons() {
		for _, s := range table.Sets {
			if s.Learned == 0 {
				test(table, s)
			}
		}
	}
}

func testForeign(t *testing.T, e env) {
	ours, theirs := Skeleton(nftables.IPv4), Skeleton(nftables.IPv4)
	theirs.Name = "somebody"
	e.mustEnsure(t, theirs)
	o := ops(theirs, theirs.Sets[0], 0, 9)
	e.mustApply(t, o...)
	e.mustEnsure(t, ours)
	e.mustApply(t, ops(ours, ours.Sets[0], 0, 9)...)
	if err := e.Remove(t.Context(), []nftables.Table{ours}); err != nil {
		t.Fatal(err)
	}
	e.settled(t, theirs)
	e.wantElements(t, []nftables.Table{theirs}, o...)
	e.wantElements(t, []nftables.Table{ours})
}

func testEnded(t *testing.T, e env) {
	table := Skeleton(nftables.IPv4)
	e.mustEnsure(t, table)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if failed := e.Apply(ctx, ops(table, table.Sets[0], 0, 3)); len(failed) != 3 || !errors.Is(failed[2], context.Canceled) {
		t.Errorf("apply: %v", failed)
	}
	all := []nftables.Table{table}
	_, errEnsure := e.Ensure(ctx, all)
	_, errDump := e.Dump(ctx, all)
	_, errGeneration := e.Generation(ctx)
	_, errHolds := e.Holds(ctx, table.ID("frontends"), op(table, table.Sets[0], 1).Key)
	for what, err := range map[string]error{"ensure": errEnsure, "dump": errDump, "generation": errGeneration, "holds": errHolds, "remove": e.Remove(ctx, all)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	e.wantElements(t, all)
}

// testGeneration: what changes something changes the number, also in a table of others; what only looks does not.
func testGeneration(t *testing.T, e env) {
	ours, theirs := Skeleton(nftables.IPv4), Skeleton(nftables.IPv6)
	theirs.Name = "somebody"
	one := op(ours, ours.Sets[1], 1)
	other := one
	other.Mark = 9
	last := e.generation(t)
	for _, step := range []struct {
		what    string
		changes bool
		do      func()
	}{
		{"making tables", true, func() { e.mustEnsure(t, ours) }},
		{"ensuring what is there", false, func() { e.settled(t, ours) }},
		{"adding an element", true, func() { e.mustApply(t, one) }},
		{"replacing its mark", true, func() { e.mustApply(t, other) }},
		{"listing", false, func() { e.wantElements(t, []nftables.Table{ours}, other) }},
		{"making a table of others", true, func() { e.mustEnsure(t, theirs) }},
		{"adding to it", true, func() { e.mustApply(t, op(theirs, theirs.Sets[0], 1)) }},
		{"deleting an element", true, func() { e.mustApply(t, gone([]nftables.Op{other})...) }},
		{"removing a table", true, func() {
			if err := e.Remove(t.Context(), []nftables.Table{ours}); err != nil {
				t.Error(err)
			}
		}},
	} {
		step.do()
		now := e.generation(t)
		if (now != last) != step.changes {
			t.Errorf("%s: from %d to %d", step.what, last, now)
		}
		last = now
	}
}

func (e env) generation(t *testing.T) uint32 {
	t.Helper()
	g, err := e.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// testRandom compares with the simplest possible model: what is in after each step.
func testRandom(t *testing.T, e env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	all := skeletons()
	e.mustEnsure(t, all...)
	have := map[string]nftables.Op{}
	for range 60 {
		var batch []nftables.Op
		for range r.IntN(200) {
			table := all[r.IntN(len(all))]
			s := table.Sets[r.IntN(len(table.Sets))]
			if s.Learned > 0 {
				continue
			}
			o := op(table, s, r.IntN(40))
			o.Delete = r.IntN(3) == 0
			if o.Mark != 0 && r.IntN(3) == 0 {
				o.Mark += 1000
			}
			batch = append(batch, o)
			key := fmt.Sprint(o.Set, o.Key)
			if o.Delete {
				delete(have, key)
			} else {
				have[key] = o
			}
		}
		e.mustApply(t, batch...)
		var want []nftables.Op
		for _, o := range have {
			want = append(want, o)
		}
		e.wantElements(t, all, want...)
	}
}
