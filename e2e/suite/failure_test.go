//go:build e2e && linux

package suite

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

const schedulerAnnotation = "kube-hop.io/ipvs-scheduler"

// TestOneFailureCostsOnlyItself: a Service that the kernel refuses is named, makes the daemon unhealthy after two
// periods, and hinders no other.
func TestOneFailureCostsOnlyItself(t *testing.T) {
	c := quick(t)
	n1 := c.nodes[0]
	good, bad := newService("good", 41, c.A1), newService("bad", 42, c.A1)
	bad.Slices[0].Endpoints[0].Addresses[0] = "192.168.50.255" // IPVS takes no broadcast address
	bad.Spec.ExternalIPs, bad.Status.LoadBalancer.Ingress = nil, nil
	bad.Spec.Ports = bad.Spec.Ports[:1]
	bad.Spec.Ports[0].NodePort = 0
	bad.Spec.ClusterIPs, bad.Spec.IPFamilies = bad.Spec.ClusterIPs[:1], bad.Spec.IPFamilies[:1]
	n1.awaitHealth(t, http.StatusOK)
	log := n1.logSince(t)
	c.apply(t, bad, good)

	if err := c.everyoneIsServed(t, good); err != nil {
		t.Error("the other Service: ", err)
	}
	if v := n1.metric(t, "kubehop_failing_objects"); v != 1 {
		t.Errorf("kubehop_failing_objects is %v, want 1", v)
	}
	awaitLog(t, log, "default/bad", "add real server", bad.at(4).String())
	n1.awaitHealth(t, http.StatusServiceUnavailable)
	if err := c.everyoneIsServed(t, good); err != nil {
		t.Error("the other Service while unhealthy: ", err)
	}

	c.apply(t, bad.withPods(c.A1))
	n1.awaitHealth(t, http.StatusOK)
	if v := n1.metric(t, "kubehop_failing_objects"); v != 0 {
		t.Errorf("kubehop_failing_objects is %v at the end, want 0", v)
	}
	if _, err := c.A2.Ask(t.Context(), testbed.TCP, bad.at(4)); err != nil {
		t.Error("the Service that failed: ", err)
	}
}

// awaitHealth waits until /healthz and /livez answer with a code.
func (n *node) awaitHealth(t *testing.T, want int) {
	t.Helper()
	for _, path := range []string{"/healthz", "/livez"} {
		eventually(t, 2*quickPeriod+startLimit, func() error {
			code, body, err := n.get(healthURL + path)
			if err == nil && code != want {
				err = fmt.Errorf("%s: %d, want %d: %s", path, code, want, body)
			}
			return err
		})
	}
}

// TestBrokenFile: a file with a mistake is named with document and field, its last good state stays in force, and
// other files' changes apply.
func TestBrokenFile(t *testing.T) {
	c := shared(t)
	m, other := newService("broken", 43, c.A2), newService("not-broken", 44, c.A2)
	c.apply(t, m, other)
	log := c.nodes[0].logSince(t)
	text := m.withPods(c.B2).text()
	c.put(t, m.Name, strings.Replace(text, "  externalIPs:", "  externalIpps: []\n  externalIPs:", 1))
	c.apply(t, other.withPods(c.B2))

	awaitLog(t, log, "broken.yaml", "document 1", "externalIpps")
	one := client{c.A1, c.N1}
	for _, f := range m.frontends(c.N1) {
		c.askEvenly(t, one, testbed.TCP, f, "a2")
	}
	for _, f := range other.frontends(c.N1) {
		c.askEvenly(t, one, testbed.TCP, f, "b2")
	}
	c.put(t, m.Name, text)
	c.settle(t)
	for _, f := range m.frontends(c.N1) {
		c.askEvenly(t, one, testbed.TCP, f, "b2")
	}
}
