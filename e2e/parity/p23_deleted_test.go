//go:build e2e && linux

package parity

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP23Deleted: when a frontend goes, its connections go on or end with an error, and none hangs; those of other
// frontends do not notice.
func TestP23Deleted(t *testing.T) {
	r := begin(t, "P23", "Connections of a deleted frontend go on or end with an error, and never hang")
	s := r.service("p23")
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	held := map[string][]*testbed.Stream{}
	for _, client := range []*testbed.Host{r.A2, r.N1, r.Out} {
		for _, f := range append(s.externals(r.N1), s.C()) {
			held[f.name] = append(held[f.name], r.hold(client, f)...)
		}
	}
	for _, step := range []struct {
		front  string
		change func()
	}{
		{s.N(r.N1).name, func() {
			s.update(func(s *corev1.Service) {
				s.Spec.AllocateLoadBalancerNodePorts = new(false)
				for i := range s.Spec.Ports {
					s.Spec.Ports[i].NodePort = 0
				}
			})
		}},
		{s.V().name, func() { s.ingress() }},
		{s.E().name, func() { s.update(func(s *corev1.Service) { s.Spec.ExternalIPs = nil }) }},
		{s.C().name, s.delete},
	} {
		step.change()
		r.settle()
		for _, stream := range held[step.front] {
			if err := stream.Ping(); errors.Is(err, testbed.ErrTimeout) {
				r.Errorf("a connection from %s through the deleted %s hangs", stream.Local(), step.front)
			}
		}
		delete(held, step.front)
		for front, streams := range held {
			r.goOn("after "+step.front+" was deleted, a connection through "+front, streams)
		}
	}
}
