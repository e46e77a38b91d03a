package iptablestest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
)

// ErrInjected is the failure of a flaky implementation. What failed with it has not been tried.
var ErrInjected = errors.New("injected failure")

var _ iptables.Sets = (*FlakySets)(nil)

// FlakySets fails one operation in n and passes the others on: an entry, a set to create or to destroy, a dump.
type FlakySets struct {
	inner iptables.Sets
	n     int
	mu    sync.Mutex
	rand  *rand.Rand
}

// NewFlakySets logs the seed, with which the same calls fail at the same places.
func NewFlakySets(tb testing.TB, inner iptables.Sets, n int, seed uint64) *FlakySets {
	tb.Helper()
	tb.Logf("flaky sets: one operation in %d fails, seed %d", n, seed)
	return &FlakySets{inner: inner, n: n, rand: rand.New(rand.NewPCG(seed, 0))}
}

func (f *FlakySets) fails() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rand.IntN(f.n) == 0
}

// Ensure implements iptables.Sets.
func (f *FlakySets) Ensure(ctx context.Context, sets []iptables.Set) error {
	pass, err := f.split("create", sets)
	return errors.Join(err, f.inner.Ensure(ctx, pass))
}

// Dump implements iptables.Sets.
func (f *FlakySets) Dump(ctx context.Context, sets []iptables.Set) (iptables.SetState, error) {
	if f.fails() {
		return nil, fmt.Errorf("ipset: list: %w", ErrInjected)
	}
	return f.inner.Dump(ctx, sets)
}

// Count implements iptables.Sets.
func (f *FlakySets) Count(ctx context.Context, sets []iptables.Set) (map[string]int, error) {
	if f.fails() {
		return nil, fmt.Errorf("ipset: count: %w", ErrInjected)
	}
	return f.inner.Count(ctx, sets)
}

// Apply implements iptables.Sets. Operations reach the inner implementation one at a time, so that the failures
// come back in the order of the operations.
func (f *FlakySets) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	var failed []*iptables.SetError
	for i, op := range ops {
		if f.fails() {
			failed = append(failed, &iptables.SetError{Op: op, Err: ErrInjected})
			continue
		}
		failed = append(failed, f.inner.Apply(ctx, ops[i:i+1])...)
	}
	return failed
}

// Destroy implements iptables.Sets.
func (f *FlakySets) Destroy(ctx context.Context, sets []iptables.Set) error {
	pass, err := f.split("destroy", sets)
	return errors.Join(err, f.inner.Destroy(ctx, pass))
}

func (f *FlakySets) split(verb string, sets []iptables.Set) (pass []iptables.Set, err error) {
	var errs []error
	for _, s := range sets {
		if f.fails() {
			errs = append(errs, fmt.Errorf("ipset: %s %s: %w", verb, s.Name, ErrInjected))
		} else {
			pass = append(pass, s)
		}
	}
	return pass, errors.Join(errs...)
}
