package proxier_test

import (
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier"
)

// TestTriggers: the time of a change is handed over once, with the change, and not if it was before the start.
func TestTriggers(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	tr := proxier.NewTracker(func() time.Time { return start })
	name := lb.Name{Namespace: "default", Name: "web"}
	set := func(at time.Time, ready bool) int {
		tr.SetEndpointSlice(lb.EndpointSlice{
			Name: name, Service: name, Family: lb.IPv6, Triggered: at, Endpoints: []lb.Endpoint{{Ready: ready}},
		})
		triggers := tr.Take().Triggers
		for _, got := range triggers {
			if got.Family != lb.IPv6 || !got.At.Equal(at) {
				t.Errorf("trigger %v, want IPv6 at %s", got, at)
			}
		}
		return len(triggers)
	}
	for i, step := range []struct {
		at    time.Duration
		ready bool
		want  int
	}{
		{-time.Second, true, 0}, // before the start
		{time.Second, false, 1},
		{time.Second, true, 0},      // a change that nobody dated
		{2 * time.Second, true, 0},  // nothing of the slice changed
		{3 * time.Second, false, 1}, // something did
	} {
		if got := set(start.Add(step.at), step.ready); got != step.want {
			t.Errorf("step %d: %d triggers, want %d", i, got, step.want)
		}
	}
	tr.DeleteEndpointSlice(name)
	if got := tr.Take().Triggers; len(got) > 0 {
		t.Errorf("deletion: %v", got)
	}
}
