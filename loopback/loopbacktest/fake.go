// Package loopbacktest holds a [loopback.Table] in memory and the suite that it and the kernel pass.
package loopbacktest

import (
	"context"
	"errors"
	"maps"
	"sync"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/loopback"
)

var _ loopback.Table = (*Fake)(nil)

// Fake is a table in memory. It is safe for concurrent use.
type Fake struct {
	mu      sync.Mutex
	ready   bool
	missing []string
	entries map[iptables.Entry]struct{}
}

// NewFake returns a kernel that holds nothing yet.
func NewFake() *Fake {
	return &Fake{missing: []string{"hooks"}, entries: map[iptables.Entry]struct{}{}}
}

// Clear empties the table as if its hooks had been taken away.
func (f *Fake) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missing = []string{"hooks"}
	clear(f.entries)
}

// Ensure implements loopback.Table.
func (f *Fake) Ensure(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	missing := f.missing
	f.ready, f.missing = true, nil
	return missing, nil
}

// Dump implements loopback.Table.
func (f *Fake) Dump(ctx context.Context) (map[iptables.Entry]struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.entries), ctx.Err()
}

var errNotReady = errors.New("loopback: the table does not exist yet")

// Apply implements loopback.Table.
func (f *Fake) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
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

func (f *Fake) apply(op iptables.SetOp) error {
	if err := loopback.Check(op.Entry); err != nil {
		return err
	}
	if !f.ready {
		return errNotReady
	}
	if op.Delete {
		delete(f.entries, op.Entry)
		return nil
	}
	maps.DeleteFunc(f.entries, func(e iptables.Entry, _ struct{}) bool {
		return e.Family() == op.Entry.Family() && e.Proto == op.Entry.Proto && e.Port == op.Entry.Port
	})
	f.entries[op.Entry] = struct{}{}
	return nil
}

// Remove implements loopback.Table.
func (f *Fake) Remove(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready, f.missing = false, []string{"hooks"}
	clear(f.entries)
	return nil
}
