package iptablestest

import (
	"errors"
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
)

func TestFakeSets(t *testing.T) {
	ConformanceSets(t, func(*testing.T) SetsEnv {
		f := NewFakeSets()
		return SetsEnv{Sets: f, Use: func(_ *testing.T, s iptables.Set) func() { return f.Use(s.Name) }}
	})
}

// What failed in a flaky implementation has not happened, and retrying gets everything done.
func TestFlakySets(t *testing.T) {
	fake := NewFakeSets()
	flaky := NewFlakySets(t, fake, 3, 1)
	s := set("A", iptables.HashIPPort, iptables.IPv4)
	for flaky.Ensure(t.Context(), []iptables.Set{s}) != nil {
	}
	ops := adds(s, 0, 200)
	failed := flaky.Apply(t.Context(), ops)
	if len(failed) < 30 || len(failed) > 110 || !errors.Is(failed[0], ErrInjected) {
		t.Fatalf("%d of %d failed", len(failed), len(ops))
	}
	if got, err := fake.Dump(t.Context(), []iptables.Set{s}); err != nil || len(got["A"]) != len(ops)-len(failed) {
		t.Fatalf("%d entries after %d failures: %v", len(got["A"]), len(failed), err)
	}
	for len(failed) > 0 {
		var again []iptables.SetOp
		for _, f := range failed {
			again = append(again, f.Op)
		}
		failed = flaky.Apply(t.Context(), again)
	}
	wantDump(t, SetsEnv{Sets: fake}, []iptables.Set{s}, ops...)
}
