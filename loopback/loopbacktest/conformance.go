package loopbacktest

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/loopback"
)

// Entry returns the frontend of a protocol by its IANA number, such as 6 and "192.0.2.1:30080".
func Entry(proto uint8, frontend string) iptables.Entry {
	ap := netip.MustParseAddrPort(frontend)
	return iptables.Entry{Prefix: netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()), Proto: proto, Port: ap.Port()}
}

func add(e iptables.Entry) iptables.SetOp { return iptables.SetOp{Set: loopback.SetName, Entry: e} }

func del(e iptables.Entry) iptables.SetOp {
	return iptables.SetOp{Delete: true, Set: loopback.SetName, Entry: e}
}

// Conformance checks what loopback.Table promises. open returns a table of a namespace that holds nothing; called
// again in the same subtest it opens the same one once more, as a daemon that starts again would.
func Conformance(t *testing.T, open func(t *testing.T) func() loopback.Table) {
	for name, test := range map[string]func(*testing.T, func() loopback.Table){
		"Ensure": testEnsure, "Apply": testApply, "Replace": testReplace, "Refuse": testRefuse, "Again": testAgain,
		"Remove": testRemove, "Ended": testEnded,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

//nolint:gochecknoglobals // never changed
var some = []iptables.Entry{
	Entry(6, "192.0.2.1:30080"), Entry(17, "192.0.2.1:30080"), Entry(6, "192.0.2.1:30081"),
	Entry(6, "[2001:db8::1]:30080"), Entry(17, "[2001:db8::1]:65535"),
}

func ready(t *testing.T, table loopback.Table) loopback.Table {
	t.Helper()
	if _, err := table.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	return table
}

func do(t *testing.T, table loopback.Table, ops ...iptables.SetOp) {
	t.Helper()
	for _, err := range table.Apply(t.Context(), ops) {
		t.Error(err)
	}
}

func wantEntries(t *testing.T, table loopback.Table, want ...iptables.Entry) {
	t.Helper()
	w := map[iptables.Entry]struct{}{}
	for _, e := range want {
		w[e] = struct{}{}
	}
	got, err := table.Dump(t.Context())
	if err != nil || !maps.Equal(got, w) {
		t.Errorf("the table holds %v (%v), want %v", got, err, w)
	}
}

func testEnsure(t *testing.T, open func() loopback.Table) {
	table := open()
	wantEntries(t, table)
	if failed := table.Apply(t.Context(), []iptables.SetOp{add(some[0])}); len(failed) != 1 {
		t.Errorf("before Ensure an entry was added: %v", failed)
	}
	missing, err := table.Ensure(t.Context())
	if err != nil || len(missing) == 0 {
		t.Errorf("first Ensure: missing %v, %v; want something to be missing", missing, err)
	}
	do(t, table, add(some[0]))
	missing, err = table.Ensure(t.Context())
	if err != nil || len(missing) != 0 {
		t.Errorf("second Ensure: missing %v, %v; want nothing", missing, err)
	}
	wantEntries(t, table, some[0])
}

func testApply(t *testing.T, open func() loopback.Table) {
	table := ready(t, open())
	for _, e := range some {
		do(t, table, add(e), add(e))
	}
	wantEntries(t, table, some...)
	do(t, table, del(some[0]), del(some[0]), del(some[3]))
	wantEntries(t, table, some[1], some[2], some[4])
}

func testReplace(t *testing.T, open func() loopback.Table) {
	table := ready(t, open())
	former, next := Entry(6, "192.0.2.1:30080"), Entry(6, "192.0.2.2:30080")
	do(t, table, add(former), add(next))
	wantEntries(t, table, next)
	do(t, table, del(former))
	wantEntries(t, table, next)
	do(t, table, del(next))
	wantEntries(t, table)
}

func testRefuse(t *testing.T, open func() loopback.Table) {
	table := ready(t, open())
	sctp, wide, pair := Entry(132, "192.0.2.1:30080"), some[0], some[0]
	wide.Prefix = netip.MustParsePrefix("192.0.2.0/24")
	pair.Net = wide.Prefix
	bad := []iptables.SetOp{add(sctp), add(wide), add(pair), add(iptables.Entry{})}
	failed := table.Apply(t.Context(), append([]iptables.SetOp{add(some[0])}, append(bad, add(some[1]))...))
	if len(failed) != len(bad) {
		t.Fatalf("failures %v, want %d", failed, len(bad))
	}
	for i, f := range failed {
		if f.Op != bad[i] || !errors.Is(f, iptables.ErrEntry) {
			t.Errorf("%v: want ErrEntry for %v", f, bad[i])
		}
	}
	wantEntries(t, table, some[0], some[1])
}

func testAgain(t *testing.T, open func() loopback.Table) {
	do(t, ready(t, open()), add(some[0]))
	again := open()
	missing, err := again.Ensure(t.Context())
	if err != nil || len(missing) != 0 {
		t.Errorf("Ensure of the next process: missing %v, %v; want nothing", missing, err)
	}
	wantEntries(t, again, some[0])
}

func testRemove(t *testing.T, open func() loopback.Table) {
	table := open()
	for range 2 { // an absent table, and one that is there
		if err := table.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, table)
		do(t, ready(t, table), add(some[0]))
		wantEntries(t, table, some[0])
	}
}

func testEnded(t *testing.T, open func() loopback.Table) {
	table := ready(t, open())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	failed := table.Apply(ctx, []iptables.SetOp{add(some[0]), add(some[1])})
	if len(failed) != 2 || !errors.Is(failed[0], context.Canceled) {
		t.Errorf("after the end: %v, want both to fail", failed)
	}
	if _, err := table.Ensure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ensure after the end: %v", err)
	}
	wantEntries(t, table)
}
