//go:build e2e && linux

package suite

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestSkippedServices: Services that are not for the proxy are not programmed, also if they were before.
func TestSkippedServices(t *testing.T) {
	c := shared(t)
	for i, row := range []struct {
		name   string
		change func(*manifest)
		// endpoints only: the virtual server stays, without real servers
		endpoints bool
	}{
		{"headless", func(m *manifest) {
			m.Spec.ClusterIP, m.Spec.ClusterIPs, m.Spec.Type = "None", []string{"None"}, corev1.ServiceTypeClusterIP
		}, false},
		{"external-name", func(m *manifest) {
			m.Spec.Type, m.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.org"
		}, false},
		{"other-proxy", func(m *manifest) {
			m.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": ""}
		}, false},
		{"headless-slice", func(m *manifest) {
			for _, s := range m.Slices {
				s.Labels[corev1.IsHeadlessService] = ""
			}
		}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := newService(row.name, 10+i, c.A2)
			c.apply(t, m)
			for _, f := range m.frontends(c.N1) {
				if err := c.nodes[0].want(testbed.TCP, f.addr, true); err != nil {
					t.Fatal("before: ", err)
				}
			}
			row.change(m)
			c.apply(t, m)
			for _, f := range m.frontends(c.N1) {
				if !row.endpoints {
					if err := c.nodes[0].want(testbed.TCP, f.addr, false); err != nil {
						t.Error(err)
					}
					continue
				}
				if _, err := c.A1.Ask(t.Context(), testbed.TCP, f.addr); refused(client{c.A1, c.N1}, err) != nil {
					t.Errorf("%s: %v, want refused", f, err)
				}
			}
		})
	}
}
