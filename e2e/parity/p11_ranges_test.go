//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
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
			clients.Go(func() { r.mustNotAnswer(ctx, dst, &tried) })
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
		r.must(controlplane.DeleteService(ctx, r.client, namespace, s.Name))
		again := controlplane.NewService(namespace, s.Name, spec.Type)
		again.Spec = spec
		_, err := controlplane.ApplyService(ctx, r.client, again)
		r.must(err)
		s.ingress(s.balancer...)
	}
	r.settle()
	stop()
	clients.Wait()
	if tried.Load() < int64(rounds()) {
		r.Errorf("only %d requests were sent", tried.Load())
	}
}

// mustNotAnswer asks from outside until ctx ends, and reports the first answer.
func (r *row) mustNotAnswer(ctx context.Context, dst netip.AddrPort, tried *atomic.Int64) {
	for ctx.Err() == nil {
		tried.Add(1)
		if a, err := r.Out.Ask(ctx, testbed.TCP, dst, testbed.Timeout(100*time.Millisecond)); err == nil {
			r.Errorf("request %d to %s from outside of the ranges is answered by %s", tried.Load(), dst, a.Pod)
			return
		}
	}
}
