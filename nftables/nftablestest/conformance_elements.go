package nftablestest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/kube-hop/kube-hop/nftables"
)

func testElements(t *testing.T, e env) {
	e.eachSet(t, func(table nftables.Table, s nftables.Set) {
		o := ops(table, s, 0, 7)
		e.mustApply(t, o...)
		e.mustApply(t, o...) // adding the present succeeds
		e.wantElements(t, skeletons(), o...)
		e.mustApply(t, gone(ops(table, s, 2, 9))...) // deleting the absent succeeds
		e.wantElements(t, skeletons(), o[:2]...)
		e.mustApply(t, gone(o)...)
	})
}

// testHolds looks into the sets that are given and into the one that learns and may be put into.
func testHolds(t *testing.T, e env) {
	for _, f := range []nftables.Family{nftables.IPv4, nftables.IPv6} {
		table := Skeleton(f)
		silent := slices.IndexFunc(table.Sets, func(s nftables.Set) bool { return s.Name == "silent" })
		for _, s := range []nftables.Set{table.Sets[0], table.Sets[2], table.Sets[3], table.Sets[silent]} {
			in, out := op(table, s, 1), op(table, s, 2)
			e.wantHolds(t, in, false) // no table
			e.mustEnsure(t, table)
			e.wantHolds(t, in, false)
			e.mustApply(t, in, in)
			e.wantHolds(t, in, true)
			e.wantHolds(t, out, false)
			e.wantHoldsOf(t, ops(table, s, 1, 2), ops(table, s, 2, 70))
			if s.Learned > 0 {
				e.wantElements(t, []nftables.Table{table}) // it is not listed
			}
			e.settled(t, table)
			e.mustApply(t, gone([]nftables.Op{in})...)
			e.wantHolds(t, in, false)
			if err := e.Remove(t.Context(), []nftables.Table{table}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (e env) wantHolds(t *testing.T, o nftables.Op, want bool) {
	t.Helper()
	if got, err := e.Holds(t.Context(), o.Set, o.Key); !maps.Equal(got, map[nftables.Key]bool{o.Key: want}) || err != nil {
		t.Errorf("%s holds %s: %v, %v; want %t", o.Set, o.Key, got, err, want)
	}
}

// wantHoldsOf looks for many elements of one set at once, of which only those in are there, between the others.
func (e env) wantHoldsOf(t *testing.T, in, out []nftables.Op) {
	t.Helper()
	var keys []nftables.Key
	want := map[nftables.Key]bool{}
	for i, o := range slices.Concat(out[:len(out)/2], in, out[len(out)/2:]) {
		keys = append(keys, o.Key)
		want[o.Key] = i >= len(out)/2 && i < len(out)/2+len(in)
	}
	if got, err := e.Holds(t.Context(), in[0].Set, keys...); !maps.Equal(got, want) || err != nil {
		t.Errorf("%s holds %v, %v; want %v", in[0].Set, got, err, want)
	}
	if got, err := e.Holds(t.Context(), in[0].Set); len(got) > 0 || err != nil {
		t.Errorf("%s holds %v, %v without being asked", in[0].Set, got, err)
	}
}

func testMany(t *testing.T, e env) {
	e.eachSet(t, func(table nftables.Table, s nftables.Set) {
		o := ops(table, s, 0, 3000)
		e.mustApply(t, o...)
		e.wantElements(t, skeletons(), o...)
		e.mustApply(t, gone(o[100:])...)
		e.wantElements(t, skeletons(), o[:100]...)
		e.mustApply(t, gone(o)...)
	})
}

func testReplace(t *testing.T, e env) {
	table := Skeleton(nftables.IPv6)
	e.mustEnsure(t, table)
	o := ops(table, table.Sets[1], 0, 300)
	e.mustApply(t, o...)
	for i := range o {
		if i%3 == 0 {
			o[i].Mark++
		}
	}
	e.mustApply(t, o...)
	e.wantElements(t, []nftables.Table{table}, o...)
	old := o[0]
	old.Mark, old.Delete = 0, true // the mark does not matter
	e.mustApply(t, old)
	e.wantElements(t, []nftables.Table{table}, o[1:]...)
}

func testOrder(t *testing.T, e env) {
	table := Skeleton(nftables.IPv4)
	e.mustEnsure(t, table)
	one := op(table, table.Sets[1], 1)
	other := one
	other.Mark = 9
	del := gone([]nftables.Op{one})[0]
	for _, tc := range []struct{ do, left []nftables.Op }{
		{[]nftables.Op{one, del, one}, []nftables.Op{one}},
		{[]nftables.Op{del, one, del}, nil},
		{[]nftables.Op{del, del, one, one}, []nftables.Op{one}},
		{[]nftables.Op{other, one, other}, []nftables.Op{other}},
		{[]nftables.Op{del, other, one}, []nftables.Op{one}},
	} {
		e.mustApply(t, tc.do...)
		e.wantElements(t, []nftables.Table{table}, tc.left...)
	}
}

func testBad(t *testing.T, e env) {
	v4, v6 := Skeleton(nftables.IPv4), Skeleton(nftables.IPv6)
	e.mustEnsure(t, skeletons()...)
	frontends := v4.Sets[0]
	good := ops(v4, frontends, 0, 300)
	wrongFamily, noKey, withMark, tooShort, noMark := good[0], good[0], good[0], op(v4, v4.Sets[2], 1), op(v4, v4.Sets[1], 1)
	wrongFamily.Key.Addr = op(v6, v6.Sets[0], 1).Key.Addr
	noKey.Key = nftables.Key{}
	withMark.Mark = 3
	tooShort.Set = v4.ID(frontends.Name)
	noMark.Mark = 0
	absent := good[0]
	absent.Set.Name = "absent"
	bad := []nftables.Op{wrongFamily, noKey, withMark, tooShort, noMark, absent}
	var mixed []nftables.Op
	for i, o := range good {
		mixed = append(mixed, o)
		if i%50 == 7 {
			mixed = append(mixed, bad[i/50])
		}
	}
	failed := e.Apply(t.Context(), mixed)
	if len(failed) != len(bad) {
		t.Errorf("%d failed, want %d: %v", len(failed), len(bad), failed)
	}
	for i, f := range failed {
		want := nftables.ErrElement
		if i < len(bad) && bad[i] == absent {
			want = nftables.ErrNoSet
		}
		if f.Op != bad[i] || !errors.Is(f, want) {
			t.Errorf("failure %d is %v, want %v of %s", i, f, want, bad[i])
		}
	}
	e.wantElements(t, skeletons(), good...)
}
