package ipvstest

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"syscall"

	"github.com/kube-hop/kube-hop/ipvs"
)

func realOfEveryKind(b *bench) {
	want := map[ipvs.Key]ipvs.VirtualServer{}
	for _, k := range keys() {
		b.do(addVirtual(k, rr), addReal(k, server(k, 2)), editReal(k, server(k, 1)))
		want[k] = ipvs.VirtualServer{Config: rr, Real: []ipvs.RealServer{server(k, 1), server(k, 2)}}
	}
	b.wantVirtual(want)
	for _, k := range keys() {
		b.do(deleteReal(k, server(k, 1).Dest))
		want[k] = ipvs.VirtualServer{Config: rr, Real: []ipvs.RealServer{server(k, 2)}}
		b.wantVirtual(want)
	}
}

func realIdempotent(b *bench) {
	for _, k := range keys() {
		one, two := server(k, 1), weighing(server(k, 1), 2)
		b.do(addVirtual(k, rr))
		for _, op := range []ipvs.Op{addReal(k, one), addReal(k, one), addReal(k, two), editReal(k, one), editReal(k, one)} {
			b.do(op)
			b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr, Real: []ipvs.RealServer{op.Real}}})
		}
		for range 2 {
			b.do(deleteReal(k, one.Dest))
			b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr}})
		}
		b.do(addReal(k, two)) // also what was there before comes back as asked
		b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr, Real: []ipvs.RealServer{two}}})
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
	}
}

func realOfAbsentVirtual(b *bench) {
	for _, k := range keys() {
		for _, err := range b.refuse(addReal(k, server(k, 1)), editReal(k, server(k, 1))) {
			if !errors.Is(err, syscall.ESRCH) {
				b.Errorf("%v", err)
			}
		}
		b.do(deleteReal(k, server(k, 1).Dest))
	}
	b.want(ipvs.State{})
}

func realAddressesThatCannotBe(b *bench) {
	v4, v6 := keys()[0], keys()[1]
	b.do(addVirtual(v4, rr), addVirtual(v6, rr))
	for _, a := range []string{"0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1"} {
		r := ipvs.RealServer{Dest: ipvs.Dest{Addr: netip.MustParseAddr(a), Port: 80}, Weight: 1}
		k := v4
		if r.Addr.Is6() {
			k = v6
		}
		b.refuse(addReal(k, r), editReal(k, r))
		b.do(deleteReal(k, r.Dest))
	}
	b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{v4: {Config: rr}, v6: {Config: rr}})
}

// realSameServerTwice: ports tell real servers apart, and one may serve several virtual servers.
func realSameServerTwice(b *bench) {
	want := map[ipvs.Key]ipvs.VirtualServer{}
	for _, k := range keys() {
		one := server(k, 1)
		two, last := one, one
		two.Port, last.Port = one.Port+1, 65535
		b.do(addVirtual(k, rr), addReal(k, last), addReal(k, one), addReal(k, two))
		want[k] = ipvs.VirtualServer{Config: rr, Real: []ipvs.RealServer{one, two, last}}
	}
	b.wantVirtual(want)
	k := keys()[0]
	b.do(editReal(k, weighing(server(k, 1), 5)))
	want[k].Real[0].Weight = 5
	b.wantVirtual(want)
}

func weights(b *bench) {
	k := keys()[0]
	for _, scheduler := range []string{"rr", "wrr", "mh"} {
		c := ipvs.Config{Scheduler: scheduler}
		b.do(addVirtual(k, c))
		for _, w := range []int{0, 1, 0, 255, 256, 32768, ipvs.MaxWeight, 0} {
			b.do(addReal(k, weighing(server(k, 1), w)))
			b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: c, Real: []ipvs.RealServer{weighing(server(k, 1), w)}}})
		}
	}
}

// manyReal: more than fit into one answer of the kernel, added in no order.
func manyReal(b *bench) {
	const n = 300
	for _, k := range keys()[:2] {
		var ops []ipvs.Op
		var want []ipvs.RealServer
		for i := range n {
			want = append(want, weighing(server(k, i), i))
		}
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) { //nolint:gosec // to be repeated, not secret
			ops = append(ops, addReal(k, want[i]))
		}
		b.do(append([]ipvs.Op{addVirtual(k, rr)}, ops...)...)
		b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr, Real: want}})
		c, err := b.table.Conns(b.Context(), k)
		if len(c) != n || err != nil {
			b.Errorf("connections of %d real servers, %v", len(c), err)
		}
		for _, r := range want[1:] {
			b.do(deleteReal(k, r.Dest))
		}
		b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr, Real: want[:1]}})
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
	}
}

// order: within one Apply a later operation sees what the earlier ones did.
func order(b *bench) {
	for _, k := range keys() {
		b.do(
			addVirtual(k, rr), addReal(k, server(k, 1)), deleteReal(k, server(k, 1).Dest), addReal(k, server(k, 2)),
			ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}, deleteReal(k, server(k, 2).Dest),
			editVirtual(k, rr), editReal(k, server(k, 3)), addReal(k, weighing(server(k, 3), 0)),
			bind("10.96.0.0/16", Sources()[0]), unbind("10.96.0.0/16"), bind("10.97.0.0/16", netip.Addr{}), bind("10.97.0.0/16", Sources()[1]),
		)
		b.want(ipvs.State{
			Virtual: map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr, Real: []ipvs.RealServer{weighing(server(k, 3), 0)}}},
			Bound:   map[netip.Prefix]netip.Addr{netip.MustParsePrefix("10.97.0.0/16"): Sources()[1]},
		})
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}, unbind("10.97.0.0/16"))
	}
}

// invalidOps fail by themselves. The IPv6 real server of an IPv4 virtual server is one that the kernel would accept
// and misread.
func invalidOps(b *bench) {
	v4, v6 := keys()[0], keys()[1]
	b.do(addVirtual(v4, rr), addVirtual(v6, rr))
	errs := b.refuse(
		ipvs.Op{},
		addVirtual(v4, ipvs.Config{}),
		addVirtual(v4, ipvs.Config{Scheduler: "wlc", Flags: ipvs.FlagForeign}),
		addReal(v4, server(v6, 1)), addReal(v6, server(v4, 1)), deleteReal(v4, server(v6, 1).Dest),
		addReal(v4, weighing(server(v4, 1), ipvs.WeightForeign)), addReal(v4, weighing(server(v4, 1), ipvs.MaxWeight+1)),
		bind("10.96.0.1/16", netip.Addr{}), bind("0.0.0.0/0", netip.Addr{}), bind("10.96.0.0/16", Sources()[2]),
		unbind("10.96.0.1/16"),
	)
	for _, err := range errs {
		if !errors.Is(err, ipvs.ErrInvalid) {
			b.Errorf("%v", err)
		}
	}
	b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{v4: {Config: rr}, v6: {Config: rr}})
}

func failuresDoNotStopTheRest(b *bench) {
	k, absent := keys()[0], keys()[2]
	errs := b.table.Apply(b.Context(), []ipvs.Op{
		addReal(k, server(k, 1)), addVirtual(k, rr), addReal(absent, server(absent, 1)), addReal(k, server(k, 2)), {}, addReal(k, server(k, 3)),
	})
	if len(errs) != 3 || errs[0].Op != addReal(k, server(k, 1)) || errs[1].Op != addReal(absent, server(absent, 1)) || errs[2].Op != (ipvs.Op{}) {
		b.Errorf("failed: %v", errs)
	}
	b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr, Real: []ipvs.RealServer{server(k, 2), server(k, 3)}}})
}
