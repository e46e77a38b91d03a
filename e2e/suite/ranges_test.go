//go:build e2e && linux

package suite

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestRangesHoldAlways is P11: while Services with loadBalancerSourceRanges come, change and go, a client outside of the
// ranges never gets an answer, and one that old and new ranges allow loses nothing.
func TestRangesHoldAlways(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 12
	}
	c := shared(t)
	inside := netip.AddrPortFrom(c.manyAddresses(t, 1)[0], 0)
	ranges := [][]string{
		{inside.Addr().String() + "/32", "2001:db8::/64"},
		{"192.168.50.128/26", "10.244.1.0/24", "2001:db8::/64"}, // out is 192.168.50.100
		{"10.244.0.0/16", "192.168.50.130/31", "2001:db8:1::/64", "2001:db8::/64"},
	}
	stays, moves := newService("ranges-stay", 60, c.A2), newService("ranges-move", 61, c.A2)
	stays.Spec.LoadBalancerSourceRanges = ranges[0]
	c.apply(t, stays)
	at := func(m *manifest) netip.AddrPort { return netip.AddrPortFrom(m.addr(loadBalancer, 4), 80) }
	held, err := c.Out.Dial(t.Context(), testbed.TCP, at(stays), testbed.From(inside))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var tried, answered, opened atomic.Int64
	for _, m := range []*manifest{stays, moves} {
		for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
			wg.Go(func() {
				for ctx.Err() == nil {
					tried.Add(1)
					if _, err := c.Out.Ask(ctx, proto, at(m), testbed.Timeout(30*time.Millisecond)); err == nil {
						answered.Add(1)
					}
				}
			})
		}
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := c.Out.Ask(ctx, testbed.TCP, at(stays), testbed.From(inside), testbed.Timeout(20*time.Second)); err != nil && ctx.Err() == nil {
				t.Errorf("connection %d of a client that all ranges allow: %v", opened.Load(), err)
				return
			}
			opened.Add(1)
		}
	})
	for i := range rounds {
		c.changeRanges(t, i, ranges, stays, moves)
		if err := held.Ping(); err != nil {
			t.Fatalf("held connection after round %d: %v", i, err)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d requests from outside of the ranges, %d connections from inside", tried.Load(), opened.Load())
	if answered.Load() != 0 || tried.Load() < int64(rounds) || opened.Load() < int64(rounds) {
		t.Errorf("%d of %d requests from outside of the ranges were answered, %d connections from inside", answered.Load(), tried.Load(), opened.Load())
	}
}

// changeRanges is one round: other ranges for one Service, another one that is created, gets a port, or is deleted, and
// ten others that change too.
func (c *cluster) changeRanges(t *testing.T, round int, ranges [][]string, stays, moves *manifest) {
	t.Helper()
	stays.Spec.LoadBalancerSourceRanges = ranges[round%len(ranges)]
	c.put(t, stays.Name, stays.text())
	moves.Spec.LoadBalancerSourceRanges = ranges[round%len(ranges)]
	switch round % 3 {
	case 0:
		c.put(t, moves.Name, moves.text())
	case 1:
		more := *moves
		more.Spec.Ports = append(slices.Clip(more.Spec.Ports), more.Spec.Ports[0])
		last := &more.Spec.Ports[len(more.Spec.Ports)-1]
		last.Name, last.Port, last.NodePort = "more", 81, 0
		c.put(t, moves.Name, more.text())
	default:
		c.drop(t, moves.Name)
	}
	for i := range 10 {
		other := newService(fmt.Sprintf("ranges-other-%d", i), 110+i, c.A1)
		if (round+i)%2 == 0 {
			other.withPods(c.B1)
		}
		c.put(t, other.Name, other.text())
	}
	c.settle(t)
}

// TestRangesAndTheNode is P12: processes of a node are clients like any other, and the address that they use has to be in the
// ranges.
func TestRangesAndTheNode(t *testing.T) {
	c := shared(t)
	m := newService("ranges-node", 62, c.A2)
	at := func(family int) netip.AddrPort { return netip.AddrPortFrom(m.addr(loadBalancer, family), 80) }
	check := func(node, pod bool) {
		t.Helper()
		c.apply(t, m)
		var all []expectation
		for _, family := range []int{4, 6} {
			f := frontend{kind: loadBalancer, addr: at(family)}
			all = append(all, expectation{client{c.N1, c.N1}, f, testbed.TCP, node}, expectation{client{c.A1, c.N1}, f, testbed.TCP, pod})
		}
		c.checkAll(t, all)
		for _, family := range []int{4, 6} {
			own := netip.AddrPortFrom(c.N1.Addr(at(family).Addr()), 0)
			_, err := c.N1.Ask(t.Context(), testbed.TCP, at(family), testbed.From(own), testbed.Timeout(dropTimeout(node)))
			if (err == nil) != node {
				t.Errorf("n1 from %s to %s: %v, want an answer: %t", own.Addr(), at(family), err, node)
			}
		}
	}
	m.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", "2001:db8::/64"}
	check(false, false)
	m.Spec.LoadBalancerSourceRanges = append(m.Spec.LoadBalancerSourceRanges, c.N1.Addr4.String()+"/32", c.N1.Addr6.String()+"/128")
	check(true, false)
	m.Spec.LoadBalancerSourceRanges = append(m.Spec.LoadBalancerSourceRanges, "10.244.1.0/24", "fd24:0:0:1::/64")
	check(true, true)
}
