//go:build e2e && linux

package suite

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestRestart: connections, held and new, do not notice that the daemon is killed or stopped and started again, and
// the new one changes nothing that is right.
func TestRestart(t *testing.T) {
	c := shared(t)
	n1 := c.nodes[0]
	m, gone := newService("restart", 20, c.A2, c.B2), newService("restart-gone", 21, c.A2)
	c.apply(t, m, gone)
	c.rest(t)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			load := c.startLoad(t, m)
			n1.stop(t, sig)
			load.check(t, "while the daemon is away")
			c.restart(t, n1)
			if n := n1.metric(t, "kubehop_kernel_operations_total"); n != 0 {
				t.Errorf("%v kernel operations after the restart, want none", n)
			}
			load.end(t)
		})
	}
	t.Run("changed meanwhile", func(t *testing.T) {
		load := c.startLoad(t, m)
		n1.stop(t, syscall.SIGKILL)
		c.put(t, m.Name, m.withPods(c.A2, c.B1).text())
		c.drop(t, gone.Name)
		c.restart(t, n1)
		c.settle(t)
		load.end(t)
		for _, family := range []int{4, 6} {
			at := m.at(family)
			for pod, want := range map[*testbed.Host]int{c.A2: 1, c.B1: 1, c.B2: 0} {
				if got := n1.weights(t, testbed.TCP, at)[endpoint(pod, at, podPort)]; got != want {
					t.Errorf("weight of %s is %d, want %d", pod, got, want)
				}
			}
			c.askEvenly(t, client{c.A1, c.N1}, testbed.TCP, frontend{kind: clusterIP, addr: at}, "a2", "b1")
		}
		for _, f := range gone.frontends(c.N1) {
			if err := n1.want(testbed.TCP, f.addr, false); err != nil {
				t.Error(err)
			}
		}
		for _, family := range []int{4, 6} { // still in a range that is ours
			_, err := c.A1.Ask(t.Context(), testbed.TCP, gone.at(family))
			if err := refused(client{c.A1, c.N1}, err); err != nil {
				t.Errorf("deleted Service at %s: %v", gone.at(family), err)
			}
		}
	})
}

// restart starts a node's daemon again.
func (c *cluster) restart(t *testing.T, n *node) {
	t.Helper()
	if err := n.launch(context.WithoutCancel(t.Context())); err != nil { // it outlives the subtest
		t.Fatal(err)
	}
	if err := n.awaitStart(); err != nil {
		t.Fatal(err)
	}
}

// load is traffic that must not notice anything: held connections, and new ones without a pause.
type load struct {
	streams []*testbed.Stream
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	asked  map[string]int
	failed []error
}

// startLoad holds connections from inside and outside in both families, and opens new ones beside them.
func (c *cluster) startLoad(t *testing.T, m *manifest) *load {
	t.Helper()
	l := &load{asked: map[string]int{}}
	var ctx context.Context
	ctx, l.stop = context.WithCancel(t.Context())
	for i, f := range m.frontends(c.N1) {
		from := c.A1
		if f.kind != clusterIP {
			from = c.Out
		}
		s, err := from.Dial(t.Context(), testbed.TCP, f.addr)
		if err != nil {
			t.Fatal(err)
		}
		l.streams = append(l.streams, s)
		if i%4 == 0 || i%4 == 3 { // ClusterIP and NodePort
			l.wg.Go(func() { l.ask(ctx, from, f) })
		}
	}
	return l
}

func (l *load) ask(ctx context.Context, from *testbed.Host, f frontend) {
	for ctx.Err() == nil {
		_, err := from.Ask(ctx, testbed.TCP, f.addr)
		l.mu.Lock()
		l.asked[fmt.Sprintf("%s to %s", from, f)]++
		if err != nil && ctx.Err() == nil {
			l.failed = append(l.failed, err)
		}
		l.mu.Unlock()
	}
}

// check uses the held connections.
func (l *load) check(t *testing.T, when string) {
	t.Helper()
	for _, s := range l.streams {
		if err := s.Ping(); err != nil {
			t.Errorf("held connection %s: %v", when, err)
		}
	}
}

// end stops and tells whether anything was lost.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.check(t, "at the end")
	l.stop()
	l.wg.Wait()
	for _, s := range l.streams {
		_ = s.Close()
	}
	t.Logf("requests: %v", l.asked)
	if len(l.asked) != 4 {
		t.Errorf("requests by %v, want from four sides", l.asked)
	}
	if len(l.failed) > 0 {
		t.Errorf("%d requests lost, first: %v", len(l.failed), l.failed[0])
	}
}
