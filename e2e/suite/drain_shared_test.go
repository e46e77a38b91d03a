//go:build e2e && linux

package suite

import (
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// drainPatience is longer than a daemon takes to give up an endpoint that is dead: the kernel sums its counters up every
// two seconds, and three times clients must not have been answered.
const drainPatience = 20 * time.Second

// TestDrainSamePort (P17, P31): an endpoint that left its Service goes on with its connections, also where IPVS counts
// its packets for others: of two connections from one client port to one endpoint, through two VIPs, it takes the
// replies of the older one for those of the newer one.
func TestDrainSamePort(t *testing.T) {
	c := shared(t)
	if _, err := c.N1.Serve(t.Context(), testbed.TCP, podPort); err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []*testbed.Host{c.B2, c.N1} {
		t.Run(endpoint.Name, func(t *testing.T) { drainSamePort(t, c, endpoint) })
	}
}

func drainSamePort(t *testing.T, c *cluster, endpoint *testbed.Host) {
	m, other := newService("drain-shared", 10, endpoint), newService("drain-shared-other", 11, endpoint)
	c.apply(t, m, other)
	var older, newer []*testbed.Stream
	dial := func(from *testbed.Host, m *manifest, family int, port testbed.Option) *testbed.Stream {
		s, err := from.Dial(t.Context(), testbed.TCP, m.at(family), port)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, from := range []*testbed.Host{c.A1, c.Out} {
		for _, family := range []int{4, 6} {
			p := testbed.FromPort(freePort())
			older = append(older, dial(from, m, family, p))
			newer = append(newer, dial(from, other, family, p))
		}
	}
	c.apply(t, m.withPods(c.A2)) // the other Service keeps it
	begin := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; time.Since(begin) < drainPatience; <-tick.C {
		for _, s := range older {
			if err := s.Ping(); err != nil {
				t.Fatalf("the connection of %s, %s after its endpoint left: %v", s.Local(), time.Since(begin), err)
			}
		}
	}
	for _, s := range newer {
		if err := s.Ping(); err != nil {
			t.Errorf("the newer connection of %s: %v", s.Local(), err)
		}
	}
}
