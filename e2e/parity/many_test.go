//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// target sets the port of the endpoints, in place of podPort.
func target(port int32) option {
	return func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(port) }
}

// alone stops the subject on the common nodes until the end of the row, for rows about how a node starts or how much
// it holds: the others would only take their time from it.
func (r *row) alone() {
	r.Helper()
	r.Cleanup(func() {
		ctx := context.WithoutCancel(r.Context())
		for _, n := range r.proxied() {
			if err := r.startDaemon(ctx, n); err != nil {
				r.Errorf("after the test: %v", err)
			}
		}
		if err := r.cluster.settle(ctx); err != nil {
			r.Errorf("after the test: %v", err)
		}
	})
	for _, n := range r.proxied() {
		r.must(r.stopDaemon(r.Context(), n))
	}
}

// many stores n Services with one endpoint each until the end of the row, several at a time. They have only a
// ClusterIP, unless change says otherwise.
func (r *row) many(name string, n int, pod *testbed.Host, change func(i int, s *corev1.Service)) {
	r.Helper()
	ctx := context.WithoutCancel(r.Context())
	r.Cleanup(func() {
		r.sideBySide(n, func(i int) error {
			return (&service{row: r, Service: controlplane.NewService(namespace, fmt.Sprintf("%s-%d", name, i), "")}).remove(ctx)
		})
	})
	r.sideBySide(n, func(i int) error {
		want := controlplane.NewService(namespace, fmt.Sprintf("%s-%d", name, i), corev1.ServiceTypeClusterIP, controlplane.TCP(80, podPort))
		change(i, want)
		svc, err := controlplane.ApplyService(ctx, r.client, want)
		if err != nil {
			return err
		}
		for _, family := range svc.Spec.IPFamilies {
			slice := controlplane.NewSlice(svc, family, controlplane.ReadyEndpoint(pod.Addr(families()[family]), pod.Node.Name))
			if _, err := controlplane.ApplySlice(ctx, r.client, slice); err != nil {
				return err
			}
		}
		return nil
	})
}

// sideBySide calls fn with 0 to n-1, eight at a time.
func (r *row) sideBySide(n int, fn func(i int) error) {
	r.Helper()
	next := make(chan int)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				errs[i] = fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			r.Errorf("%v", err)
			return
		}
	}
}
