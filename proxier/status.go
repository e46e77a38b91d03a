package proxier

import (
	"sync"
	"time"
)

// Status is the health of the loop, for the health server. It is safe for concurrent use.
//
// As in kube-proxy the loop is healthy as long as no change has waited for longer than the limit: an idle one stays
// healthy for ever, one that cannot apply a change turns unhealthy, however often it tries.
type Status struct {
	now     func() time.Time
	limit   time.Duration
	pending func() time.Time // since when the oldest change waits; zero for none

	mu      sync.Mutex
	failing time.Time // since when the oldest failure lasts; zero for none
	updated time.Time
	started bool
}

func newStatus(now func() time.Time, limit time.Duration, pending func() time.Time) *Status {
	return &Status{now: now, limit: limit, pending: pending, updated: now()}
}

// set notes the end of a sync.
func (s *Status) set(failing time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing, s.started = failing, true
	if failing.IsZero() {
		s.updated = s.now()
	}
}

// Healthy reports the health and when the kernel was last known to be up to date.
func (s *Status) Healthy() (healthy bool, updated time.Time) {
	waiting := s.pending()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	late := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) >= s.limit }
	return !late(waiting) && !late(s.failing), s.updated
}

// Started reports whether the first sync is over.
func (s *Status) Started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}
