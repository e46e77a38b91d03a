//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/nftables/nftnl"
)

// localService returns a Service with externalTrafficPolicy Local.
func localService(name string, number int, pods ...*testbed.Host) *manifest {
	m := newService(name, number, pods...)
	m.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	return m
}

// external returns the frontends that the external policy is about.
func (m *manifest) external(via *testbed.Host) []frontend {
	var out []frontend
	for _, f := range m.frontends(via) {
		if f.kind != clusterIP {
			out = append(out, f)
		}
	}
	return out
}

// insideClients returns those that see all endpoints, whatever the policy: pods and the node.
func (c *cluster) insideClients() []client {
	return []client{{c.A1, c.N1}, {c.B1, c.N2}, {c.N1, c.N1}}
}

// viewsAre checks both views of every external frontend: pods and the node reach each of inside in turn, the client
// outside each of outside, or is dropped where there is none.
func (c *cluster) viewsAre(t *testing.T, m *manifest, inside, outside []string) {
	t.Helper()
	out := client{c.Out, c.N1}
	for _, proto := range protos {
		for _, cl := range c.insideClients() {
			for _, f := range m.external(cl.via) {
				t.Run(fmt.Sprintf("%s %s to %s", proto, cl.host, f), func(t *testing.T) {
					c.askEvenly(t, cl, proto, f, inside...)
				})
			}
		}
		for _, f := range m.external(c.N1) {
			if len(outside) > 0 {
				t.Run(fmt.Sprintf("%s out to %s", proto, f), func(t *testing.T) {
					c.askEvenly(t, out, proto, f, outside...)
				})
			}
		}
	}
	if len(outside) == 0 {
		var all []expectation
		for _, f := range m.external(c.N1) {
			for _, proto := range protos {
				all = append(all, expectation{out, f, proto, false})
			}
		}
		c.checkAll(t, all)
	}
}

// TestLocalViews (P02, P03, X-L-*): at one external address of a Service with policy Local, pods and the node reach all
// endpoints, and the pods keep their addresses; clients outside reach only those of the node that they ask.
func TestLocalViews(t *testing.T) {
	c := shared(t)
	m := localService("views", 92, c.A2, c.B2)
	c.apply(t, m)
	t.Run("local and remote", func(t *testing.T) { c.viewsAre(t, m, []string{"a2", "b2"}, []string{"a2"}) })

	c.apply(t, m.withPods(c.B2))
	t.Run("none local", func(t *testing.T) { c.viewsAre(t, m, []string{"b2"}, nil) })

	m.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	c.apply(t, m.withPods(c.A2, c.B2))
	t.Run("policy Cluster", func(t *testing.T) {
		for _, cl := range c.clients() {
			for _, f := range m.external(cl.via) {
				c.askEvenly(t, cl, testbed.TCP, f, "a2", "b2")
			}
		}
	})
	m.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	c.apply(t, m)
	t.Run("policy Local again", func(t *testing.T) { c.viewsAre(t, m, []string{"a2", "b2"}, []string{"a2"}) })
}

// TestLocalViewsWithForeignMarks: marks that other software sets, before and after us, change nothing, and nobody sees
// ours.
func TestLocalViewsWithForeignMarks(t *testing.T) {
	c := shared(t)
	m := localService("marks", 93, c.A2, c.B2)
	c.apply(t, m)
	n1 := c.nodes[0]
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, r := range [][2]string{{"filter", "INPUT"}, {"mangle", "PREROUTING"}, {"mangle", "INPUT"}, {"mangle", "OUTPUT"}} {
			rule := []string{r[1], "-m", "comment", "--comment", "somebody", "-j", "MARK", "--or-mark", "0x10010000"}
			n1.runWhile(t, append([]string{tool, "-t", r[0], "-I"}, rule...), append([]string{tool, "-t", r[0], "-D"}, rule...))
		}
		// What comes out of IPVS has no mark of ours, which all have this bit.
		seen := []string{"POSTROUTING", "-m", "mark", "--mark", "0x08000000/0x08000000", "-j", "DROP"}
		n1.runWhile(t, append([]string{tool, "-t", "mangle", "-I"}, seen...), append([]string{tool, "-t", "mangle", "-D"}, seen...))
	}
	c.viewsAre(t, m, []string{"a2", "b2"}, []string{"a2"})
}

// TestLocalViewsAcrossRestart: a daemon that comes back finds the views as they are; connections through them go on
// meanwhile, and each client stays with its pod where the Service asks for that.
func TestLocalViewsAcrossRestart(t *testing.T) {
	c := shared(t)
	m := localService("kept", 94, c.A2, c.B2)
	sticky := localService("sticky", 95, c.A2, c.B2)
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	sticky.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
		ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(600))},
	}
	c.apply(t, m, sticky)
	c.rest(t)
	n1 := c.nodes[0]
	var streams []*testbed.Stream
	for _, proto := range protos {
		for _, f := range m.external(c.N1) {
			for _, h := range []*testbed.Host{c.A1, c.A1, c.N1} {
				s, err := h.Dial(t.Context(), proto, f.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				streams = append(streams, s)
			}
		}
	}
	before := n1.tablesGeneration(t)
	n1.stop(t, syscall.SIGTERM)
	for _, s := range streams {
		if err := s.Ping(); err != nil {
			t.Error("without a daemon: ", err)
		}
	}
	c.restart(t, n1)
	if n := n1.metric(t, "kubehop_kernel_operations_total"); n != 0 {
		t.Errorf("%v kernel operations after the restart, want none", n)
	}
	if n := n1.tablesGeneration(t) - before; n != 0 {
		t.Errorf("%d changes of nf_tables after the restart, want none", n)
	}
	for _, s := range streams {
		if err := s.Ping(); err != nil {
			t.Error("after the restart: ", err)
		}
	}
	for _, f := range sticky.external(c.N1) {
		t.Run("sticky "+f.String(), func(t *testing.T) {
			for _, h := range []*testbed.Host{c.A1, c.N1} {
				tally := h.AskMany(t.Context(), 10, testbed.TCP, f.addr)
				if err := tally.Err(); err != nil || len(tally.Pods) != 1 {
					t.Errorf("%s: answers by pod %v, %v; want always the same", h, tally.Pods, err)
				}
			}
		})
	}
}

// tablesGeneration returns a number that every change of the node's nf_tables makes larger by one.
func (n *node) tablesGeneration(t *testing.T) (generation uint32) {
	t.Helper()
	err := n.Do(func() error {
		tables, err := nftnl.Open()
		if err != nil {
			return err
		}
		generation, err = tables.Generation(t.Context())
		return errors.Join(err, tables.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return generation
}
