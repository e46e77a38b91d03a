package loopbacktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/loopback"
)

// ErrInjected is the failure of a flaky table. What failed with it has not been tried.
var ErrInjected = errors.New("injected failure")

// Flaky is a table of which one operation in n fails. Ensure, Dump and Remove always work. It is for one goroutine.
type Flaky struct {
	loopback.Table

	n    int
	rand *rand.Rand
}

// NewFlaky wraps a table. It logs the seed, with which the same operations fail.
func NewFlaky(tb testing.TB, table loopback.Table, n int, seed uint64) *Flaky {
	tb.Helper()
	tb.Logf("flaky loopback: one operation in %d fails, seed %d", n, seed)
	return &Flaky{Table: table, n: n, rand: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // to be repeated, not secret
}

// Apply implements loopback.Table.
func (f *Flaky) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	var failed []*iptables.SetError
	for i, op := range ops {
		if f.rand.IntN(f.n) == 0 {
			failed = append(failed, &iptables.SetError{Op: op, Err: ErrInjected})
			continue
		}
		failed = append(failed, f.Table.Apply(ctx, ops[i:i+1])...)
	}
	return failed
}
