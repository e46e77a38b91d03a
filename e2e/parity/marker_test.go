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
// slice: both watches have then brought all that came before. Twice, because a proxy that writes Services one by one
// may come to the marker first; when it follows the second move, the round of the first one is complete.
func (c *cluster) settle(ctx context.Context) error {
	for range 2 {
		if err := c.moveMarker(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) moveMarker(ctx context.Context) error {
	c.marker.moves++
	port := uint16(20000 + c.marker.moves)
	svc := controlplane.NewService(namespace, "marker", corev1.ServiceTypeClusterIP, controlplane.TCP(int32(port), podPort))
	svc, err := controlplane.ApplyService(ctx, c.client, svc)
	if err != nil {
		return err
	}
	pod := []*testbed.Host{c.A2, c.B2}[c.marker.moves%2]
	for family, like := range families() {
		slice := controlplane.NewSlice(svc, family, controlplane.ReadyEndpoint(pod.Addr(like), pod.Node.Name))
		if _, err := controlplane.ApplySlice(ctx, c.client, slice); err != nil {
			return err
		}
	}
	for _, addr := range svc.Spec.ClusterIPs {
		if err := c.followed(ctx, netip.AddrPortFrom(netip.MustParseAddr(addr), port), pod); err != nil {
			return err
		}
	}
	return nil
}

// followed waits until the marker leads to the pod on every node.
func (c *cluster) followed(ctx context.Context, dst netip.AddrPort, pod *testbed.Host) error {
	errs := make([]error, len(c.daemons))
	var wg sync.WaitGroup
	i := 0
	for n := range c.daemons {
		result := &errs[i]
		i++
		wg.Go(func() {
			*result = c.await(ctx, "marker on "+n.Name, func() error {
				a, err := n.Ask(ctx, testbed.TCP, dst, testbed.Timeout(time.Second))
				if err == nil && a.Pod != pod.Name {
					err = fmt.Errorf("answered by %s, want %s", a.Pod, pod)
				}
				return err
			})
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// families returns an address of each family, to choose others by.
func families() map[corev1.IPFamily]netip.Addr {
	return map[corev1.IPFamily]netip.Addr{
		corev1.IPv4Protocol: netip.IPv4Unspecified(), corev1.IPv6Protocol: netip.IPv6Unspecified(),
	}
}
