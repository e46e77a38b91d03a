//go:build e2e && linux

package suite

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestSessionAffinity: with ClientIP affinity a client keeps its pod while clients are spread over the pods; without
// it again, each client is spread.
func TestSessionAffinity(t *testing.T) {
	c := shared(t)
	m := newService("affinity", 6, c.A2, c.B2)
	m.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	m.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
		ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(600))},
	}
	c.apply(t, m)
	type row struct {
		proto testbed.Proto
		f     frontend
	}
	var rows []row
	for _, f := range m.frontends(c.N1) {
		rows = append(rows, row{testbed.TCP, f})
	}
	rows = append(rows, row{testbed.UDP, rows[0].f}, row{testbed.SCTP, rows[4].f})
	for _, r := range rows {
		t.Run(fmt.Sprintf("%s %s", r.proto, r.f), func(t *testing.T) {
			if got := c.nodes[0].virtual(t, r.proto, r.f.addr).Persistence; got != 10*time.Minute {
				t.Errorf("persistence in the kernel is %s, want 10m", got)
			}
			c.askSticky(t, r.proto, r.f)
		})
	}
	m.Spec.SessionAffinity, m.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
	c.apply(t, m)
	for _, r := range rows {
		t.Run(fmt.Sprintf("off %s %s", r.proto, r.f), func(t *testing.T) {
			if got := c.nodes[0].virtual(t, r.proto, r.f.addr).Persistence; got != 0 {
				t.Errorf("persistence in the kernel is %s, want none", got)
			}
			c.askEvenly(t, client{c.A1, c.N1}, r.proto, r.f, "a2", "b2")
		})
	}
}

// askSticky asks 15 times from each of three clients: each must stay with one pod, and not all with the same.
func (c *cluster) askSticky(t *testing.T, proto testbed.Proto, f frontend) {
	t.Helper()
	reached := map[string]bool{}
	for _, from := range []*testbed.Host{c.A1, c.N1, c.Out} {
		tally := from.AskMany(t.Context(), 15, proto, f.addr)
		if err := tally.Err(); err != nil {
			t.Fatal(err)
		}
		if len(tally.Pods) != 1 {
			t.Errorf("%s was answered by %v, want always the same pod", from, tally.Pods)
		}
		for p := range tally.Pods {
			reached[p] = true
		}
	}
	if len(reached) != 2 {
		t.Errorf("three clients reached %v, want both pods", reached)
	}
}
