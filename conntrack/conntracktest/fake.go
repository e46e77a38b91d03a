// Package conntracktest holds the in-memory fake of conntrack.Table, and the contract tests that it and the kernel
// both pass.
package conntracktest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/kube-hop/kube-hop/conntrack"
)

// Fake is a conntrack.Table in memory.
type Fake struct {
	mu    sync.Mutex
	flows map[conntrack.Flow]struct{}
	fail  error
}

var _ conntrack.Table = (*Fake)(nil)

// NewFake returns an empty table.
func NewFake() *Fake { return &Fake{flows: map[conntrack.Flow]struct{}{}} }

// Add enters a flow, as a datagram would.
func (f *Fake) Add(flow conntrack.Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows[flow] = struct{}{}
}

// Has reports whether a flow is there.
func (f *Fake) Has(flow conntrack.Flow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.flows[flow]
	return ok
}

// Flows returns all flows, sorted by client, destination and server.
func (f *Fake) Flows() []conntrack.Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Keys(f.flows), func(a, b conntrack.Flow) int {
		return cmp.Or(a.Client.Compare(b.Client), a.Dst.Compare(b.Dst), a.Server.Compare(b.Server))
	})
}

// Fail makes Expire fail with an error, having deleted nothing, until it is called with nil.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Expire implements conntrack.Table.
func (f *Fake) Expire(ctx context.Context, c conntrack.Cleanup) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return 0, f.fail
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n := 0
	for flow := range f.flows {
		if c.Stale(flow) {
			delete(f.flows, flow)
			n++
		}
	}
	return n, nil
}
