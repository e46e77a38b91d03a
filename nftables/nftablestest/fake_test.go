package nftablestest

import (
	"errors"
	"testing"

	"github.com/kube-hop/kube-hop/nftables"
)

func TestFake(t *testing.T) {
	Conformance(t, func(*testing.T) nftables.Tables { return NewFake() })
}

// What failed in a flaky implementation has not happened, and retrying gets everything done.
func TestFlaky(t *testing.T) {
	fake := NewFake()
	flaky := NewFlaky(t, fake, 3, 1)
	table := Skeleton(nftables.IPv4)
	env{fake}.mustEnsure(t, table)
	all := ops(table, table.Sets[0], 0, 200)
	failed := flaky.Apply(t.Context(), all)
	if len(failed) < 30 || len(failed) > 110 || !errors.Is(failed[0], ErrInjected) {
		t.Fatalf("%d of %d failed", len(failed), len(all))
	}
	for len(failed) > 0 {
		var again []nftables.Op
		for _, f := range failed {
			again = append(again, f.Op)
		}
		failed = flaky.Apply(t.Context(), again)
	}
	env{fake}.wantElements(t, []nftables.Table{table}, all...)
}
