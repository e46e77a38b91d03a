package ipvstest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/kube-hop/kube-hop/ipvs"
)

// ErrFlaky is the cause of the failures that Flaky makes up.
var ErrFlaky = errors.New("made to fail by ipvstest.Flaky")

// Flaky is a Table of which one operation in n fails without being tried. Dump and Conns always work.
type Flaky struct {
	ipvs.Table

	mu    sync.Mutex
	n     int
	rand  *rand.Rand
	fails int
}

var _ ipvs.Table = (*Flaky)(nil)

// NewFlaky wraps a table. The same seed makes the same operations fail; 0 picks one. The seed is logged.
func NewFlaky(tb testing.TB, table ipvs.Table, n int, seed uint64) *Flaky {
	tb.Helper()
	if seed == 0 {
		seed = rand.Uint64()
	}
	tb.Logf("ipvstest.Flaky: one operation in %d fails, seed %d", n, seed)
	return &Flaky{Table: table, n: n, rand: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // to be repeated, not secret
}

// Apply implements ipvs.Table.
func (f *Flaky) Apply(ctx context.Context, ops []ipvs.Op) []*ipvs.OpError {
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed []*ipvs.OpError
	begin := 0
	for i, op := range ops {
		if f.rand.IntN(f.n) != 0 {
			continue
		}
		f.fails++
		failed = append(failed, f.Table.Apply(ctx, ops[begin:i])...)
		failed = append(failed, &ipvs.OpError{Op: op, Err: ErrFlaky})
		begin = i + 1
	}
	return append(failed, f.Table.Apply(ctx, ops[begin:])...)
}

// Fails returns how many operations were made to fail.
func (f *Flaky) Fails() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fails
}
