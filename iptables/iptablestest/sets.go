package iptablestest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/kube-hop/kube-hop/iptables"
)

var _ iptables.Sets = (*FakeSets)(nil)

// FakeSets is sets in memory. It is safe for concurrent use.
type FakeSets struct {
	mu   sync.Mutex
	sets map[string]*fakeSet
}

type fakeSet struct {
	iptables.Set
	entries map[iptables.Entry]struct{}
	uses    int
}

// NewFakeSets returns a namespace without sets.
func NewFakeSets() *FakeSets { return &FakeSets{sets: map[string]*fakeSet{}} }

// Use makes a rule refer to the set, which must exist; the result takes the rule away.
func (f *FakeSets) Use(name string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sets[name]
	s.uses++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		s.uses--
	}
}

// Clear empties a set, as a person with the ipset command might.
func (f *FakeSets) Clear(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.sets[name].entries)
}

// Count implements iptables.Sets.
func (f *FakeSets) Count(ctx context.Context, sets []iptables.Set) (map[string]int, error) {
	state, err := f.Dump(ctx, sets)
	counts := map[string]int{}
	for name, entries := range state {
		counts[name] = len(entries)
	}
	return counts, err
}

// Ensure implements iptables.Sets.
func (f *FakeSets) Ensure(ctx context.Context, sets []iptables.Set) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, want := range sets {
		if err := f.ensure(ctx, want); err != nil {
			errs = append(errs, fmt.Errorf("ipset: create %s: %w", want.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (f *FakeSets) ensure(ctx context.Context, want iptables.Set) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if want.Name == "" || len(want.Name) > 31 {
		return errors.New("a name has 1 to 31 characters")
	}
	have, ok := f.sets[want.Name]
	if !ok {
		f.sets[want.Name] = &fakeSet{Set: want, entries: map[iptables.Entry]struct{}{}}
		return nil
	}
	if have.Type != want.Type || have.Family != want.Family {
		return iptables.ErrSetType
	}
	have.MaxElem = max(have.MaxElem, want.MaxElem)
	return nil
}

// Dump implements iptables.Sets.
func (f *FakeSets) Dump(ctx context.Context, sets []iptables.Set) (iptables.SetState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state := iptables.SetState{}
	for _, set := range sets {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("ipset: list %s: %w", set.Name, err)
		}
		if s, ok := f.sets[set.Name]; ok {
			state[set.Name] = maps.Clone(s.entries)
		}
	}
	return state, nil
}

// Apply implements iptables.Sets.
func (f *FakeSets) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed []*iptables.SetError
	for _, op := range ops {
		err := ctx.Err()
		if err == nil {
			err = f.apply(op)
		}
		if err != nil {
			failed = append(failed, &iptables.SetError{Op: op, Err: err})
		}
	}
	return failed
}

func (f *FakeSets) apply(op iptables.SetOp) error {
	if err := op.Entry.Check(); err != nil {
		return err
	}
	s, ok := f.sets[op.Set]
	switch {
	case !ok && op.Delete:
		return nil
	case !ok:
		return iptables.ErrNoSet
	case op.Entry.Type() != s.Type || op.Entry.Family() != s.Family:
		return iptables.ErrEntry
	case op.Delete:
		delete(s.entries, op.Entry)
		return nil
	}
	if _, ok := s.entries[op.Entry]; !ok && len(s.entries) >= int(s.MaxElem) {
		return iptables.ErrSetFull
	}
	s.entries[op.Entry] = struct{}{}
	return nil
}

// Destroy implements iptables.Sets.
func (f *FakeSets) Destroy(ctx context.Context, sets []iptables.Set) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, set := range sets {
		err := ctx.Err()
		if s, ok := f.sets[set.Name]; err == nil && ok && s.uses > 0 {
			err = iptables.ErrSetInUse
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("ipset: destroy %s: %w", set.Name, err))
			continue
		}
		delete(f.sets, set.Name)
	}
	return errors.Join(errs...)
}
