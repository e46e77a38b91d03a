package ipvstest_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
)

func TestFakeConformance(t *testing.T) {
	ipvstest.Conformance(t, func(*testing.T) ipvs.Table { return ipvstest.NewFake(ipvstest.Sources()...) })
}

// A Flaky that is asked often enough ends in the same state.
func TestFlakyConverges(t *testing.T) {
	fake := ipvstest.NewFake()
	flaky := ipvstest.NewFlaky(t, fake, 3, 0)
	k := ipvs.Key{Addr: netip.MustParseAddr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	ops := []ipvs.Op{{Verb: ipvs.AddVirtual, Key: k, Config: ipvs.Config{Scheduler: "rr"}}}
	for port := range uint16(100) {
		d := ipvs.Dest{Addr: netip.MustParseAddr("10.244.0.1"), Port: port}
		ops = append(ops, ipvs.Op{Verb: ipvs.AddReal, Key: k, Real: ipvs.RealServer{Dest: d, Weight: 1}})
	}
	todo := ops
	for rounds := 0; len(todo) > 0; rounds++ {
		if rounds == 100 {
			t.Fatal("no end")
		}
		failed := flaky.Apply(t.Context(), todo)
		todo = nil
		for _, err := range failed {
			if !errors.Is(err, ipvstest.ErrFlaky) && !errors.Is(err.Err, errors.Unwrap(err)) {
				t.Errorf("%v", err)
			}
			todo = append(todo, err.Op)
		}
	}
	s, err := flaky.Dump(t.Context())
	if err != nil || len(s.Virtual[k].Real) != 100 {
		t.Errorf("%d real servers, %v", len(s.Virtual[k].Real), err)
	}
	if flaky.Fails() == 0 || len(fake.TakeOps()) < len(ops) {
		t.Errorf("%d made to fail", flaky.Fails())
	}
}

func TestFlakyRepeatsFromItsSeed(t *testing.T) {
	ops := slices.Repeat([]ipvs.Op{{Verb: ipvs.Unbind, Prefix: netip.MustParsePrefix("10.0.0.0/8")}}, 200)
	one := ipvstest.NewFlaky(t, ipvstest.NewFake(), 10, 42)
	two := ipvstest.NewFlaky(t, ipvstest.NewFake(), 10, 42)
	if a, b := len(one.Apply(t.Context(), ops)), len(two.Apply(t.Context(), ops)); a != b || a == 0 || a > 60 {
		t.Errorf("failures: %d and %d of %d", a, b, len(ops))
	}
}

func TestFakeConnsAndOps(t *testing.T) {
	k := ipvs.Key{Addr: netip.IPv4Unspecified(), Mark: 7}
	r := ipvs.RealServer{Dest: ipvs.Dest{Addr: netip.MustParseAddr("10.244.0.1"), Port: 80}, Weight: ipvs.WeightForeign}
	fake := ipvstest.NewFake()
	state := ipvs.State{Virtual: map[ipvs.Key]ipvs.VirtualServer{k: {Config: ipvs.Config{Scheduler: "rr"}, Real: []ipvs.RealServer{r}}}}
	fake.Load(state)
	fake.SetConns(k, r.Dest, ipvs.Conns{Active: 3, Inactive: 4})
	r.Weight = 0
	drain := ipvs.Op{Verb: ipvs.EditReal, Key: k, Real: r}
	if errs := fake.Apply(t.Context(), []ipvs.Op{drain}); errs != nil {
		t.Errorf("%v", errs)
	}
	c, err := fake.Conns(t.Context(), k)
	if err != nil || c[r.Dest] != (ipvs.Conns{Active: 3, Inactive: 4}) {
		t.Errorf("%v, %v", c, err)
	}
	if ops := fake.TakeOps(); !slices.Equal(ops, []ipvs.Op{drain}) || fake.TakeOps() != nil {
		t.Errorf("%v", ops)
	}
	if state.Virtual[k].Real[0].Weight != ipvs.WeightForeign {
		t.Error("the loaded state changed")
	}
}
