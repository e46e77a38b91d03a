//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// marker is a Service by which tests learn that the subject has caught up, whatever the subject is.
type marker struct {
	moves int
}

// settle returns when the subject has programmed, on every node and in both families, all that was stored before.
//
// The marker gets another port, which is a change of the Service, and other endpoints, which is a change of the
// slice: both watches have then brought all that came before. A proxy that writes Services one by one may come to the marker
// first: the end of the round that brought it is waited for, or, where that cannot be told, the marker is moved again. When it
// follows the second move, the round of the first one is complete.
func (c *cluster) settle(ctx context.Context) error {
	complete, err := c.moveMarker(ctx)
	if err == nil && !complete {
		_, err = c.moveMarker(ctx)
	}
	return err
}

// moveMarker returns when the marker has followed, and whether the rounds that brought it are known to have ended.
func (c *cluster) moveMarker(ctx context.Context) (complete bool, err error) {
	c.marker.moves++
	port := uint16(20000 + c.marker.moves)
	svc := controlplane.NewService(namespace, "marker", corev1.ServiceTypeClusterIP, controlplane.TCP(int32(port), podPort))
	if svc, err = controlplane.ApplyService(ctx, c.client, svc); err != nil {
		return false, err
	}
	pod := []*testbed.Host{c.A2, c.B2}[c.marker.moves%2]
	for family, like := range families() {
		slice := controlplane.NewSlice(svc, family, controlplane.ReadyEndpoint(pod.Addr(like), pod.Node.Name))
		if _, err := controlplane.ApplySlice(ctx, c.client, slice); err != nil {
			return false, err
		}
	}
	var wg sync.WaitGroup
	var followers []*follower
	for n := range c.daemons {
		for _, addr := range svc.Spec.ClusterIPs {
			f := &follower{node: n, dst: netip.AddrPortFrom(netip.MustParseAddr(addr), port), pod: pod}
			followers = append(followers, f)
			wg.Go(func() { f.follow(ctx, c) })
		}
	}
	wg.Wait()
	complete = true
	for _, f := range followers {
		if f.err != nil {
			return false, f.err
		}
		complete = complete && f.complete
	}
	return complete, nil
}

// follower waits until the marker leads to the pod on one node in one family.
type follower struct {
	node *testbed.Host
	dst  netip.AddrPort
	pod  *testbed.Host

	complete bool // the round that brought the marker has ended
	err      error
}

func (f *follower) follow(ctx context.Context, c *cluster) {
	before := -1 // how many rounds had ended when the marker was not there yet; -1 is not known
	var ended int
	var asked time.Time
	rounds := func() int {
		if time.Since(asked) > pause {
			ended, asked = c.rounds(ctx, f.node, f.dst.Addr()), time.Now()
		}
		return ended
	}
	f.err = c.await(ctx, "marker on "+f.node.Name, func() error {
		rounds := rounds()
		a, err := f.node.Ask(ctx, testbed.TCP, f.dst, testbed.Timeout(time.Second))
		if err == nil && a.Pod != f.pod.Name {
			err = fmt.Errorf("answered by %s, want %s", a.Pod, f.pod)
		}
		if err != nil {
			before = rounds
		}
		return err
	})
	// Unless a round has ended since, the one that brought the marker goes on. Otherwise it may or may not.
	if f.err != nil || before < 0 || c.rounds(ctx, f.node, f.dst.Addr()) != before {
		return
	}
	f.err = c.await(ctx, "round of the marker on "+f.node.Name, func() error {
		if ended := rounds(); ended <= before {
			return fmt.Errorf("%d rounds have ended, as before", ended)
		}
		return nil
	})
	f.complete = f.err == nil
}

// pause is how often a subject is asked for its metrics at most. The answer takes time that the subject needs.
const pause = time.Second

// rounds returns how many rounds of the address's family the subject on the node has ended, -1 if it does not tell. Only a
// subject whose rounds are long is asked: for the others a second move is quicker.
func (c *cluster) rounds(ctx context.Context, n *testbed.Host, like netip.Addr) int {
	if c.subject.rounds == "" {
		return -1
	}
	series, err := n.Series(ctx, metricsURL)
	if err != nil {
		return -1
	}
	family := corev1.IPv4Protocol
	if like.Is6() {
		family = corev1.IPv6Protocol
	}
	return int(series[fmt.Sprintf("%s{ip_family=%q}", c.subject.rounds, family)]) // absent before the first one
}

// families returns an address of each family, to choose others by.
func families() map[corev1.IPFamily]netip.Addr {
	return map[corev1.IPFamily]netip.Addr{
		corev1.IPv4Protocol: netip.IPv4Unspecified(), corev1.IPv6Protocol: netip.IPv6Unspecified(),
	}
}
