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

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// hostPort is where a process of the node listens on all addresses, as an SSH server does.
const hostPort = 2222

// TestP09HostSockets: on a VIP nothing answers but the Service's ports, also while Services come and go.
func TestP09HostSockets(t *testing.T) {
	r := begin(t, "P09", fmt.Sprintf("Host sockets do not answer on VIPs, also while a Service comes and goes %d times", rounds()))
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		_, err := r.N1.Serve(r.Context(), proto, hostPort)
		r.must(err)
	}
	s := r.service("p09")
	s.endpoints(pods(r.A1, r.B1)...)
	r.settle()
	for _, client := range []*testbed.Host{r.A2, r.N1, r.Out} {
		for _, f := range []frontend{s.C(), s.V(), s.E()} {
			for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
				r.expect(client, f.onPort(hostPort).by(proto), refused())
			}
		}
	}
	s.delete()
	r.hammerWhileChanging()
}

// hammerWhileChanging creates, changes and deletes a Service again and again while the outside client asks for the node's
// own port at its addresses. Its ClusterIP and its slices stay the same.
func (r *row) hammerWhileChanging() {
	r.Helper()
	s := r.service("p09-rounds")
	s.endpoints(ready(r.A1))
	ctx, stop := context.WithCancel(r.Context())
	var clients sync.WaitGroup
	var tried atomic.Int64
	for _, f := range []frontend{s.V().onPort(hostPort), s.E().onPort(hostPort)} {
		for _, dst := range f.at {
			clients.Go(func() { r.hammer(ctx, f.name, dst, &tried) })
		}
	}
	spec := s.Spec
	for i := range rounds() {
		s.update(func(svc *corev1.Service) { svc.Spec.Ports[0].Port = int32(81 + i%7) })
		s.recreate(spec)
	}
	r.settle()
	stop()
	clients.Wait()
	if tried.Load() < int64(rounds()) {
		r.Errorf("only %d requests were sent", tried.Load())
	}
}

// rounds is how often Services come and go in tests of what happens meanwhile.
func rounds() int {
	if testing.Short() {
		return 20
	}
	return 200
}

// hammer asks from outside until ctx ends, and reports the first answer.
func (r *row) hammer(ctx context.Context, name string, dst netip.AddrPort, tried *atomic.Int64) {
	for ctx.Err() == nil {
		tried.Add(1)
		if a, err := r.Out.Ask(ctx, testbed.TCP, dst, testbed.Timeout(100*time.Millisecond)); err == nil {
			r.Errorf("request %d to %s %s is answered by %s", tried.Load(), name, dst, a.Pod)
			return
		}
	}
}
