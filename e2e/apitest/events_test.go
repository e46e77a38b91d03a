//go:build e2e && linux

package apitest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// testEvents: what is wrong with a Service is told on the Service, and the daemon's start on the Node.
func testEvents(t *testing.T, c *cluster) {
	older := newService("events-older", corev1.ServiceTypeClusterIP)
	older.Spec.ExternalIPs = []string{"198.51.100.88"}
	younger := newService("events-younger", corev1.ServiceTypeClusterIP)
	younger.Spec.ExternalIPs = older.Spec.ExternalIPs
	younger.Annotations = map[string]string{"kube-hop.io/ipvs-scheduler": "RR!"}
	for _, svc := range []*corev1.Service{older, younger} {
		t.Cleanup(func() { c.deleteService(t, svc.Name) })
	}
	c.apply(t, older)
	stored := c.apply(t, younger)

	c.until(t, "events on the Service", func() error {
		return errors.Join(
			c.hasEvent(t, "FrontendConflict", "198.51.100.88:80", func(r corev1.ObjectReference) bool {
				return r.Kind == "Service" && r.Namespace == namespace && r.Name == younger.Name && r.UID == stored.UID
			}),
			c.hasEvent(t, "UnusableValue", `"RR!"`, func(r corev1.ObjectReference) bool { return r.UID == stored.UID }),
		)
	})
	for _, n := range c.bed.Nodes() {
		c.until(t, "event of the start on "+n.Name, func() error {
			return c.hasEvent(t, "Starting", "", func(r corev1.ObjectReference) bool { return r.Kind == "Node" && r.Name == n.Name })
		})
	}
}

// hasEvent looks for an event of the daemons with that reason and text about an object.
func (c *cluster) hasEvent(t *testing.T, reason, text string, about func(corev1.ObjectReference) bool) error {
	t.Helper()
	list, err := c.client.EventsV1().Events(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	matches := func(e eventsv1.Event) bool {
		return e.ReportingController == "kube-proxy" && e.Reason == reason && strings.Contains(e.Note, text) && about(e.Regarding)
	}
	var seen []string
	for _, e := range list.Items {
		if matches(e) {
			return nil
		}
		seen = append(seen, fmt.Sprintf("%s on %s %s: %s", e.Reason, e.Regarding.Kind, e.Regarding.Name, e.Note))
	}
	return fmt.Errorf("no event %s with %q among %q", reason, text, seen)
}
