//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// expectation is whether a client may reach a frontend.
type expectation struct {
	client client
	front  frontend
	proto  testbed.Proto
	served bool
}

// checkAll asks side by side, since what is dropped takes as long as its client waits.
func (c *cluster) checkAll(t *testing.T, all []expectation) {
	t.Helper()
	var wg sync.WaitGroup
	for _, e := range all {
		wg.Go(func() {
			_, err := e.client.host.Ask(t.Context(), e.proto, e.front.addr, testbed.Timeout(dropTimeout(e.served)))
			switch {
			case e.served && err != nil:
				t.Errorf("%s %s to %s: %v, want an answer", e.proto, e.client.host, e.front, err)
			case !e.served && !errors.Is(err, testbed.ErrTimeout) && !ownDatagramDropped(e, err):
				t.Errorf("%s %s to %s: %v, want it dropped", e.proto, e.client.host, e.front, err)
			}
		})
	}
	wg.Wait()
}

func dropTimeout(served bool) time.Duration {
	if served {
		return 10 * time.Second
	}
	return 3 * time.Second
}

// ownDatagramDropped: a node's own packet that a rule in OUTPUT drops is an error of the socket that sends it.
func ownDatagramDropped(e expectation, err error) bool {
	return err != nil && !errors.Is(err, testbed.ErrRefused) && e.client.host == e.client.via
}

// TestSourceRanges: only the sources in loadBalancerSourceRanges reach the LoadBalancer IPs, pods and the node
// included; the other frontends are open to all.
func TestSourceRanges(t *testing.T) {
	c := shared(t)
	m := newService("ranges", 70, c.A2, c.B2)
	m.Spec.LoadBalancerSourceRanges = []string{c.Out.Addr4.String() + "/32", c.Out.Addr6.String() + "/128"}
	c.apply(t, m)
	check := func(allowed func(client) bool) func(*testing.T) {
		return func(t *testing.T) {
			var all []expectation
			for _, cl := range c.clients() {
				for _, f := range m.frontends(cl.via) {
					for _, p := range protos {
						all = append(all, expectation{cl, f, p, f.kind != loadBalancer || allowed(cl)})
					}
				}
			}
			c.checkAll(t, all)
		}
	}
	t.Run("outside only", check(func(cl client) bool { return cl.host == c.Out }))

	m.Spec.LoadBalancerSourceRanges = []string{"10.244.1.0/24", "fd24:0:0:1::/64", c.N1.Addr4.String() + "/32", c.N1.Addr6.String() + "/128"}
	c.apply(t, m)
	t.Run("pods of n1 and n1 only", check(func(cl client) bool { return cl.host == c.A1 || cl.host == c.N1 }))

	m.Spec.LoadBalancerSourceRanges = nil
	c.apply(t, m)
	t.Run("everybody", check(func(client) bool { return true }))
}

// TestLocalPolicy: an external address of a Service with policy Local keeps the client's address and leads to pods of
// its node only; where there is none, outside clients are dropped and nothing of theirs leaves towards another node.
func TestLocalPolicy(t *testing.T) {
	c := shared(t)
	m := newService("local", 71, c.A2, c.B2)
	m.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	c.apply(t, m)
	out := client{c.Out, c.N1}
	for _, f := range m.frontends(c.N1) {
		if f.kind == clusterIP {
			continue
		}
		for _, p := range protos {
			t.Run(fmt.Sprintf("%s out to %s", p, f), func(t *testing.T) {
				for range 2 {
					a, err := c.Out.Ask(t.Context(), p, f.addr)
					if err != nil || a.Pod != "a2" || a.Peer.Addr() != c.Out.Addr(f.addr.Addr()) {
						t.Errorf("%+v, %v: want a2, which sees the client's own address", a, err)
					}
				}
			})
		}
	}
	c.apply(t, m.withPods(c.B2))
	leaks, err := c.N1.Sniff(t.Context(), "eth0", func(p testbed.Packet) bool {
		return p.Src.Addr() == c.Out.Addr(p.Src.Addr()) && (p.Dst.Addr() == c.B2.Addr4 || p.Dst.Addr() == c.B2.Addr6)
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []expectation
	for _, f := range m.frontends(c.N1) {
		for _, p := range protos {
			all = append(all, expectation{out, f, p, f.kind == clusterIP})
		}
	}
	c.checkAll(t, all)
	if n, err := leaks.Count(); n != 0 || err != nil {
		t.Errorf("%d packets of the outside client left towards b2 (%v)", n, err)
	}
}
