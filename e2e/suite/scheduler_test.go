//go:build e2e && linux

package suite

import (
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

// TestScheduler: a Service gets the scheduler that its annotation names, and the daemon's otherwise.
func TestScheduler(t *testing.T) {
	c := shared(t)
	m := newService("scheduler", 50, c.A2, c.B2)
	for _, row := range []struct {
		annotation string
		want       ipvs.Config
	}{
		{"", ipvs.Config{Scheduler: "rr"}},
		{"wrr", ipvs.Config{Scheduler: "wrr"}},
		{"lc", ipvs.Config{Scheduler: "lc"}},
		{"sh", ipvs.Config{Scheduler: "sh"}},
		{"mh", ipvs.Config{Scheduler: "mh", Flags: ipvs.FlagSched2}},
	} {
		t.Run("annotation "+row.annotation, func(t *testing.T) {
			m.Annotations = map[string]string{schedulerAnnotation: row.annotation}
			if row.annotation == "" {
				m.Annotations = nil
			}
			c.apply(t, m)
			state := c.nodes[0].dump(t)
			for _, proto := range protos {
				for _, f := range m.frontends(c.N1) {
					if got := state.Virtual[f.key(proto)].Config; got != row.want {
						t.Errorf("%s %s has %s, want %s", proto, f, got, row.want)
					}
				}
			}
			for _, f := range m.frontends(c.N1) {
				if _, err := c.A1.Ask(t.Context(), testbed.TCP, f.addr); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("flag", func(t *testing.T) {
		c := quick(t)
		m := newService("scheduler", 50, c.A1)
		c.apply(t, m)
		for _, f := range m.frontends(c.N1) {
			if got := c.nodes[0].virtual(t, testbed.TCP, f.addr).Scheduler; got != "wlc" {
				t.Errorf("%s has %s, want wlc", f, got)
			}
		}
	})
}
