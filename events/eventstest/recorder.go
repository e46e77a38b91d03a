// Package eventstest has a sink for tests.
package eventstest

import (
	"slices"
	"sync"

	"github.com/kube-hop/kube-hop/events"
)

// Recorder is an events.Sink that remembers. The zero value is ready.
type Recorder struct {
	mu   sync.Mutex
	list []events.Event
}

var _ events.Sink = (*Recorder)(nil)

// Report implements events.Sink.
func (r *Recorder) Report(e events.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, e)
}

// Take returns what was reported since the last Take.
func (r *Recorder) Take() []events.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.list)
	r.list = nil
	return out
}
