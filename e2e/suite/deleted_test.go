//go:build e2e && linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestDeletedFrontends: when a frontend goes, its connections end with an error soon, and those of the remaining
// frontends do not notice (P23).
func TestDeletedFrontends(t *testing.T) {
	c := shared(t)
	m := newService("deleted", 164, c.A2, c.B2)
	c.apply(t, m)
	held := map[string][]*testbed.Stream{}
	for _, f := range m.frontends(c.N1) {
		for _, cl := range c.clients() {
			if cl.via != c.N1 {
				continue
			}
			s, err := cl.host.Dial(t.Context(), testbed.TCP, f.addr, testbed.Timeout(startLimit))
			if err != nil {
				t.Fatal(err)
			}
			held[f.kind] = append(held[f.kind], s)
		}
	}
	for _, step := range []struct {
		kind   string
		change func()
	}{
		{nodePort, func() {
			m.Spec.Type = corev1.ServiceTypeClusterIP
			for i := range m.Spec.Ports {
				m.Spec.Ports[i].NodePort = 0
			}
			c.apply(t, m)
		}},
		{loadBalancer, func() { m.Status.LoadBalancer.Ingress = nil; c.apply(t, m) }},
		{externalIP, func() { m.Spec.ExternalIPs = nil; c.apply(t, m) }},
		{clusterIP, func() { c.drop(t, m.Name); c.settle(t) }},
	} {
		step.change()
		t.Run(step.kind, func(t *testing.T) {
			var wg sync.WaitGroup // side by side: one that does not end is waited for
			for _, s := range held[step.kind] {
				wg.Go(func() {
					begin := time.Now()
					err := s.Ping()
					t.Logf("%s: %v after %s", s.Local(), err, time.Since(begin).Round(time.Millisecond))
					if err == nil || errors.Is(err, testbed.ErrTimeout) {
						t.Errorf("a connection through the %s from %s: %v, want an end", step.kind, s.Local(), err)
					}
				})
			}
			wg.Wait()
			delete(held, step.kind)
			for kind, streams := range held {
				for _, s := range streams {
					if err := s.Ping(); err != nil {
						t.Errorf("a connection through the %s: %v", kind, err)
					}
				}
			}
		})
	}
}

// TestReleasedAddress: an address that no Service has any more is nobody's at once. A machine that has got it answers, and
// connections that were made through the Service end nevertheless (P23).
func TestReleasedAddress(t *testing.T) {
	c := shared(t)
	n1 := c.nodes[0]
	if _, err := c.Out.Serve(t.Context(), testbed.TCP, 80); err != nil {
		t.Fatal(err)
	}
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			m := newService("released", 168, c.A2, c.B2)
			c.apply(t, m)
			at := netip.AddrPortFrom(m.addr(loadBalancer, family), 80)
			var held []*testbed.Stream
			for _, from := range []*testbed.Host{c.A1, c.N1} {
				s, err := from.Dial(t.Context(), testbed.TCP, at, testbed.Timeout(startLimit))
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, s)
			}
			to := netip.PrefixFrom(at.Addr(), at.Addr().BitLen()).String()
			c.outDoes(t, "addr", to, "dev", "lo")
			c.outDoes(t, "route", c.A1.Addr(at.Addr()).String(), "via", c.N1.Addr(at.Addr()).String())
			n1.runWhile(t, []string{"ip", "route", "add", to, "via", c.Out.Addr(at.Addr()).String()}, []string{"ip", "route", "del", to})
			m.Status.LoadBalancer.Ingress = nil
			c.apply(t, m)
			for _, from := range []*testbed.Host{c.A1, c.N1} {
				a, err := from.Ask(t.Context(), testbed.TCP, at)
				if err != nil || a.Pod != c.Out.Name {
					t.Errorf("%s asks %s after it has moved: %v, %v, want an answer of %s", from, at, a, err, c.Out)
				}
			}
			for _, s := range held {
				if err := s.Ping(); err == nil || errors.Is(err, testbed.ErrTimeout) {
					t.Errorf("connection of %s: %v, want an end", s.Local(), err)
				}
			}
			s, err := c.A1.Dial(t.Context(), testbed.TCP, at)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Ping(); err != nil { // established, but by another
				t.Errorf("connection to the machine that has the address: %v", err)
			}
			_ = s.Close()
		})
	}
}

// outDoes runs a command of ip on the outside machine, and when the test ends the one that undoes it.
func (c *cluster) outDoes(t *testing.T, object string, args ...string) {
	t.Helper()
	do := func(verb string) error {
		out, err := c.Out.Command(context.Background(), "ip", append([]string{object, verb}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s %s %v on %s: %w: %s", object, verb, args, c.Out, err, out)
		}
		return nil
	}
	if err := do("add"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := do("del"); err != nil {
			t.Error(err)
		}
	})
}

// TestDrainDead: a pod that died without a word is given up within seconds once no slice names it, and a client that
// always uses the same source port reaches another one (P18).
func TestDrainDead(t *testing.T) {
	c := shared(t)
	m := newService("drain-dead", 165, c.B2)
	c.apply(t, m)
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			c.apply(t, m.withPods(c.B2))
			at, port := m.at(family), freePort()
			s, err := c.A1.Dial(t.Context(), testbed.TCP, at, testbed.FromPort(port), testbed.Timeout(2*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			c.mute(t, c.B2, family)
			c.apply(t, m.withPods(c.A2))
			if w := c.nodes[0].weights(t, testbed.TCP, at)[endpoint(c.B2, at, podPort)]; w != 0 {
				t.Fatalf("weight of the dead pod is %d, want 0", w)
			}
			if err := s.Ping(); !errors.Is(err, testbed.ErrTimeout) {
				t.Fatalf("the dead pod answers: %v", err)
			}
			eventually(t, startLimit, func() error {
				return sameMap(c.nodes[0].weights(t, testbed.TCP, at), map[string]int{endpoint(c.A2, at, podPort): 1})
			})
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			a, err := c.A1.Ask(t.Context(), testbed.TCP, at, testbed.FromPort(port))
			if err != nil || a.Pod != c.A2.Name {
				t.Errorf("from the same port: answered by %q, %v, want %s", a.Pod, err, c.A2)
			}
		})
	}
}

// mute makes a pod discard what it would answer on TCP, until the test ends.
func (c *cluster) mute(t *testing.T, pod *testbed.Host, family int) {
	t.Helper()
	command := map[int]string{4: "iptables", 6: "ip6tables"}[family]
	rule := []string{"OUTPUT", "-p", "tcp", "--sport", fmt.Sprint(podPort), "-j", "DROP"}
	do := func(verb string) {
		if out, err := pod.Command(context.WithoutCancel(t.Context()), command, append([]string{verb}, rule...)...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s on %s: %v\n%s", command, verb, pod, err, out)
		}
	}
	do("-A")
	t.Cleanup(func() { do("-D") })
}

// TestFlapping: connections to an endpoint whose readiness comes and goes do not notice; its real servers are edited
// and never deleted and added again (P21).
func TestFlapping(t *testing.T) {
	c := fresh(t, options{}) // on a shared one the drains of other tests end meanwhile, and are counted
	m := newService("flapping", 166, c.A2, c.B2)
	m.Spec.Type, m.Spec.ExternalIPs, m.Status.LoadBalancer.Ingress = "ClusterIP", nil, nil
	m.Spec.Ports = m.Spec.Ports[:1] // no frontend without connections, where draining ends soon
	m.Spec.Ports[0].NodePort = 0
	c.apply(t, m)
	var held []*heldStream
	for _, family := range []int{4, 6} {
		for range 3 {
			held = append(held, c.hold(t, testbed.TCP, frontend{kind: clusterIP, addr: m.at(family)}, "b2"))
		}
	}
	n1 := c.nodes[0]
	count := func(operation string) float64 {
		return n1.metric(t, fmt.Sprintf("kubehop_kernel_operations_total{operation=%q", operation))
	}
	added, deleted := count("add real server"), count("delete real server")
	for range 20 {
		ready := m.Slices[0].Endpoints[1].Conditions.Ready
		*ready = !*ready
		*m.Slices[1].Endpoints[1].Conditions.Ready = *ready
		c.apply(t, m)
		for _, h := range held {
			if err := h.stream.Ping(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if a, d := count("add real server")-added, count("delete real server")-deleted; a+d != 0 {
		t.Errorf("%v real servers were added and %v deleted, want edits only", a, d)
	}
	for _, h := range held {
		_ = h.stream.Close()
	}
}
