package nftablestest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/kube-hop/kube-hop/nftables"
)

// ErrInjected is the failure of a flaky implementation. What failed with it has not been tried.
var ErrInjected = errors.New("injected failure")

// Flaky fails one operation on an element in n, and passes everything else on.
type Flaky struct {
	nftables.Tables

	n    int
	mu   sync.Mutex
	rand *rand.Rand
}

// NewFlaky logs the seed, with which the same calls fail at the same places.
func NewFlaky(tb testing.TB, inner nftables.Tables, n int, seed uint64) *Flaky {
	tb.Helper()
	tb.Logf("flaky tables: one operation in %d fails, seed %d", n, seed)
	return &Flaky{Tables: inner, n: n, rand: rand.New(rand.NewPCG(seed, 0))}
}

// Apply implements nftables.Tables. Operations reach the inner implementation one at a time.
func (f *Flaky) Apply(ctx context.Context, ops []nftables.Op) []*nftables.OpError {
	var failed []*nftables.OpError
	for i, op := range ops {
		if f.fails() {
			failed = append(failed, &nftables.OpError{Op: op, Err: ErrInjected})
			continue
		}
		failed = append(failed, f.Tables.Apply(ctx, ops[i:i+1])...)
	}
	return failed
}

func (f *Flaky) fails() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rand.IntN(f.n) == 0
}
