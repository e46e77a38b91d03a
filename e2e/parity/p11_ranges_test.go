//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
)

// TestP11RangesHoldAlways: while a Service with loadBalancerSourceRanges comes, changes and goes again and again, a client
// outside of the ranges never gets an answer. What clients inside of them lose is tested where the changes can be
// waited for one by one, in package suite.
func TestP11RangesHoldAlways(t *testing.T) {
	r := begin(t, "P11", fmt.Sprintf("No moment without loadBalancerSourceRanges in %d rounds of changes", rounds()))
	ranges := [][]string{
		{"10.244.1.0/24", "fd24:0:0:1::/64"}, {"10.244.0.0/16", "fd24::/48"}, {"192.168.50.12/32", "fd50::12/128"},
	}
	s := r.service("p11", sourceRanges(ranges[0]...))
	s.endpoints(ready(r.A1))
	r.settle()
	ctx, stop := context.WithCancel(r.Context())
	var clients sync.WaitGroup
	var tried atomic.Int64
	for _, dst := range s.V().at {
		for range 2 {
			clients.Go(func() { r.hammer(ctx, "V", dst, &tried) })
		}
	}
	spec := s.Spec
	for i := range rounds() {
		s.update(func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = ranges[i%len(ranges)] })
		s.update(func(svc *corev1.Service) {
			more := controlplane.TCP(81, podPort)
			more.Name, svc.Spec.Ports[0].Name = "more", "first"
			svc.Spec.Ports = append(svc.Spec.Ports, more)
		})
		s.recreate(spec)
	}
	r.settle()
	stop()
	clients.Wait()
	if tried.Load() < int64(rounds()) {
		r.Errorf("only %d requests were sent", tried.Load())
	}
}
