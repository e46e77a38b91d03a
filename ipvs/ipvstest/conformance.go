package ipvstest

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/ipvs"
)

// Sources are addresses that the namespace under test must have, two of each family: bindings use them as source.
func Sources() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"),
		netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::2"),
	}
}

// Conformance checks a Table against the contract. open returns an empty table, for each subtest another one, of a
// namespace that has the Sources, and registers its clean-up. The namespace has all schedulers of the kernel.
func Conformance(t *testing.T, open func(t *testing.T) ipvs.Table) {
	t.Helper()
	suites := []struct {
		name string
		run  func(*bench)
	}{
		{"Empty", empty},
		{"VirtualOfEveryKind", virtualOfEveryKind},
		{"VirtualIdempotent", virtualIdempotent},
		{"EditVirtualInPlace", editVirtualInPlace},
		{"EditVirtualAddsTheAbsent", editVirtualAddsTheAbsent},
		{"KeysAreApart", keysAreApart},
		{"Schedulers", everyScheduler},
		{"UnknownScheduler", unknownScheduler},
		{"PersistenceAndFlags", persistenceAndFlags},
		{"RealOfEveryKind", realOfEveryKind},
		{"RealIdempotent", realIdempotent},
		{"RealOfAbsentVirtual", realOfAbsentVirtual},
		{"RealAddressesThatCannotBe", realAddressesThatCannotBe},
		{"RealSameServerTwice", realSameServerTwice},
		{"Weights", weights},
		{"ManyReal", manyReal},
		{"ManyVirtual", manyVirtual},
		{"DeleteVirtualTakesReal", deleteVirtualTakesReal},
		{"Order", order},
		{"InvalidOps", invalidOps},
		{"FailuresDoNotStopTheRest", failuresDoNotStopTheRest},
		{"ContextEnded", contextEnded},
		{"Conns", conns},
		{"Read", read},
		{"Concurrent", concurrent},
		{"Bind", bindUnbind},
		{"BindRange", bindRange},
		{"BindSourceChange", bindSourceChange},
		{"BindForeignSource", bindForeignSource},
		{"BindMany", bindMany},
		{"BindPort", bindPort},
		{"Random", random},
	}
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) { s.run(&bench{T: t, table: open(t)}) })
	}
}

// bench is one table under test, with words for what the tests say about it.
type bench struct {
	*testing.T

	table ipvs.Table
}

// do applies operations that must all succeed.
func (b *bench) do(ops ...ipvs.Op) {
	b.Helper()
	for _, err := range b.table.Apply(b.Context(), ops) {
		b.Errorf("%v", err)
	}
}

// refuse applies operations that must all fail, and returns the errors.
func (b *bench) refuse(ops ...ipvs.Op) []*ipvs.OpError {
	b.Helper()
	errs := b.table.Apply(b.Context(), ops)
	got := make([]ipvs.Op, 0, len(errs))
	for _, e := range errs {
		got = append(got, e.Op)
	}
	if d := cmp.Diff(ops, got, compare); d != "" {
		b.Errorf("failed operations (-want +got):\n%s", d)
	}
	return errs
}

func (b *bench) dump() ipvs.State {
	b.Helper()
	s, err := b.table.Dump(b.Context())
	if err != nil {
		b.Fatalf("dump: %v", err)
	}
	if bound, err := b.table.Bound(b.Context()); err != nil || !maps.Equal(bound.Bound, s.Bound) || !maps.Equal(bound.Ports, s.Ports) || bound.Virtual != nil {
		b.Errorf("bound alone: %v, %v, in the dump: %v", bound, err, s.Bound)
	}
	return s
}

// want compares a dump of the table.
func (b *bench) want(want ipvs.State) {
	b.Helper()
	if d := diff(want, b.dump()); d != "" {
		b.Errorf("state (-want +got):\n%s", d)
	}
}

// wantVirtual compares the virtual servers, of which there are these and no others.
func (b *bench) wantVirtual(want map[ipvs.Key]ipvs.VirtualServer) {
	b.Helper()
	b.want(ipvs.State{Virtual: want})
}

func (b *bench) wantBound(want map[netip.Prefix]netip.Addr) {
	b.Helper()
	b.want(ipvs.State{Bound: want})
}

// compare makes cmp look at addresses by value.
var compare = cmp.Options{ //nolint:gochecknoglobals // a constant
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// diff takes nil and empty for the same, as the contract says nothing about it.
func diff(want, got ipvs.State) string {
	equal := maps.EqualFunc(want.Virtual, got.Virtual, ipvs.VirtualServer.Equal) && maps.Equal(want.Bound, got.Bound) &&
		maps.Equal(want.Ports, got.Ports)
	if equal {
		return ""
	}
	return cmp.Diff(want, got, compare)
}

func empty(b *bench) {
	s := b.dump()
	if len(s.Virtual) != 0 || len(s.Bound) != 0 || len(s.Ports) != 0 {
		b.Errorf("not empty: %v", s)
	}
	if errs := b.table.Apply(b.Context(), nil); errs != nil {
		b.Errorf("no operations: %v", errs)
	}
	for _, k := range keys() {
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}, deleteReal(k, server(k, 1).Dest))
	}
	for p := range prefixes() {
		b.do(ipvs.Op{Verb: ipvs.Unbind, Prefix: p})
	}
	b.want(ipvs.State{})
}

func contextEnded(b *bench) {
	k := keys()[0]
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	ops := []ipvs.Op{addVirtual(k, rr), addReal(k, server(k, 1)), bind("10.96.0.0/16", netip.Addr{}), {}}
	errs := b.table.Apply(ctx, ops)
	if len(errs) != len(ops) {
		b.Fatalf("%d operations failed, want all %d", len(errs), len(ops))
	}
	for i, err := range errs {
		if err.Op != ops[i] || !errors.Is(err, context.Canceled) {
			b.Errorf("operation %d: %v", i, err)
		}
	}
	if _, err := b.table.Dump(ctx); !errors.Is(err, context.Canceled) {
		b.Errorf("dump: %v", err)
	}
	if _, err := b.table.Conns(ctx, k); !errors.Is(err, context.Canceled) {
		b.Errorf("conns: %v", err)
	}
	b.want(ipvs.State{})
}

func conns(b *bench) {
	for _, k := range keys() {
		if c, err := b.table.Conns(b.Context(), k); c != nil || err != nil {
			b.Errorf("%s absent: %v, %v", k, c, err)
		}
		b.do(addVirtual(k, rr))
		if c, err := b.table.Conns(b.Context(), k); c == nil || len(c) != 0 || err != nil {
			b.Errorf("%s without real servers: %#v, %v", k, c, err)
		}
		b.do(addReal(k, server(k, 1)), addReal(k, server(k, 2)))
		want := map[ipvs.Dest]ipvs.Conns{server(k, 1).Dest: {}, server(k, 2).Dest: {}}
		if c, err := b.table.Conns(b.Context(), k); !maps.Equal(c, want) || err != nil {
			b.Errorf("%s: %v, %v", k, c, err)
		}
	}
	if _, err := b.table.Conns(b.Context(), ipvs.Key{}); !errors.Is(err, ipvs.ErrInvalid) {
		b.Errorf("connections of no virtual server: %v", err)
	}
}

// read compares Read with Dump, for virtual servers of every kind and for absent ones.
func read(b *bench) {
	all := keys()
	for i, k := range all[1:] {
		b.do(addVirtual(k, ipvs.Config{Scheduler: "wrr", Persistence: time.Duration(i) * time.Minute}))
		if i%2 == 0 {
			b.do(addReal(k, server(k, 1)), addReal(k, server(k, 2)))
		}
	}
	want := ipvs.State{Virtual: b.dump().Virtual}
	got, err := b.table.Read(b.Context(), all)
	if d := diff(want, ipvs.State{Virtual: got}); d != "" || err != nil || len(got) != len(all)-1 {
		b.Errorf("%v, all virtual servers (-dump +read):\n%s", err, d)
	}
	if got, err = b.table.Read(b.Context(), all[:2]); len(got) != 1 || err != nil {
		b.Errorf("an absent one and another: %v, %v", got, err)
	}
	if got, err = b.table.Read(b.Context(), []ipvs.Key{{}}); !errors.Is(err, ipvs.ErrInvalid) {
		b.Errorf("no virtual server: %v, %v", got, err)
	}
}

// concurrent only means something under the race detector and with a kernel.
func concurrent(b *bench) {
	done := make(chan []*ipvs.OpError)
	for _, k := range keys() {
		go func() {
			done <- b.table.Apply(b.Context(), slices.Repeat([]ipvs.Op{addVirtual(k, rr), addReal(k, server(k, 1)), editReal(k, server(k, 1))}, 20))
		}()
	}
	for range keys() {
		_, errDump := b.table.Dump(b.Context())
		_, errConns := b.table.Conns(b.Context(), keys()[0])
		if err := errors.Join(errDump, errConns); err != nil {
			b.Errorf("%v", err)
		}
		for _, err := range <-done {
			b.Errorf("%v", err)
		}
	}
	want := map[ipvs.Key]ipvs.VirtualServer{}
	for _, k := range keys() {
		want[k] = ipvs.VirtualServer{Config: rr, Real: []ipvs.RealServer{server(k, 1)}}
	}
	b.wantVirtual(want)
}
