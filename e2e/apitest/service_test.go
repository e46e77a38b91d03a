//go:build e2e && linux

package apitest

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// testLifecycle takes one Service through everything that can be changed about it. Each subtest begins where the one
// before it ended.
func testLifecycle(t *testing.T, c *cluster) {
	svc := c.apply(t, newService("life", corev1.ServiceTypeClusterIP))
	t.Cleanup(func() { c.deleteService(t, svc.Name) })
	t.Run("Scale", func(t *testing.T) { scaleEndpoints(t, c, svc) })
	t.Run("Types", func(t *testing.T) { changeTypes(t, c, svc) })
	t.Run("Recreate", func(t *testing.T) { recreate(t, c, svc) })
}

// scaleEndpoints goes from no endpoints to four and back to none, and ends with a1 and b1.
func scaleEndpoints(t *testing.T, c *cluster, svc *corev1.Service) {
	frontends := clusterIPs(t, svc)
	a1, a2, b1, b2 := c.bed.A1, c.bed.A2, c.bed.B1, c.bed.B2
	c.awaitPods(t, frontends) // a Service without endpoints
	c.scale(t, svc, a1, b1)
	c.appears(t, frontends, a1, b1)
	c.scale(t, svc, a1, a2, b1, b2)
	c.follows(t, frontends, a1, a2, b1, b2)
	c.scale(t, svc, a2)
	c.follows(t, frontends, a2)
	c.scale(t, svc)
	c.follows(t, frontends)
	c.scale(t, svc, a1, b1)
	c.follows(t, frontends, a1, b1)
}

// changeTypes goes through the types of a Service with the endpoints a1 and b1, and ends with ExternalName.
func changeTypes(t *testing.T, c *cluster, svc *corev1.Service) {
	internal := clusterIPs(t, svc)
	pods := []*testbed.Host{c.bed.A1, c.bed.B1}

	nodePorts := c.nodePorts(t, c.apply(t, newService(svc.Name, corev1.ServiceTypeNodePort)))
	c.appears(t, nodePorts, pods...)
	c.follows(t, internal, pods...)

	svc = c.apply(t, newService(svc.Name, corev1.ServiceTypeLoadBalancer))
	ingress := []netip.Addr{netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("fd98::f:77")}
	external := at(80, ingress...)
	c.setIngress(t, svc, ingress...)
	c.appears(t, external, pods...)
	c.follows(t, c.nodePorts(t, svc), pods...)
	c.follows(t, internal, pods...)

	c.apply(t, newService(svc.Name, corev1.ServiceTypeClusterIP))
	c.setIngress(t, svc) // as the cloud's controller does when it has taken its load balancer away
	c.disappears(t, external, testbed.ErrTimeout, testbed.ErrUnreachable)
	c.disappears(t, nodePorts, testbed.ErrRefused)
	c.follows(t, internal, pods...)

	c.apply(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "www.example.org"},
	})
	c.disappears(t, internal, testbed.ErrRefused)
}

// recreate makes a ClusterIP Service again, deletes it, and creates one of the same name with other addresses: the
// slices, which nobody touched, belong to it from the start.
func recreate(t *testing.T, c *cluster, svc *corev1.Service) {
	pods := []*testbed.Host{c.bed.A1, c.bed.B1}
	internal := clusterIPs(t, c.apply(t, newService(svc.Name, corev1.ServiceTypeClusterIP)))
	c.appears(t, internal, pods...)
	c.deleteService(t, svc.Name)
	c.disappears(t, internal, testbed.ErrRefused)

	other := newService(svc.Name, corev1.ServiceTypeClusterIP)
	other.Spec.ClusterIPs = []string{"10.96.200.77", "fd96::7777"}
	other.Spec.ClusterIP = other.Spec.ClusterIPs[0]
	moved := clusterIPs(t, c.apply(t, other))
	for _, f := range moved {
		if f == internal[0] || f == internal[1] {
			t.Fatalf("the new Service has the address %s of the old one", f)
		}
	}
	c.appears(t, moved, pods...)
	c.disappears(t, internal, testbed.ErrRefused)
}

// testProxyNameLabel hands a Service over to another proxy and back, while it runs.
func testProxyNameLabel(t *testing.T, c *cluster) {
	const label = "service.kubernetes.io/service-proxy-name"
	svc := c.apply(t, newService("labelled", corev1.ServiceTypeNodePort))
	t.Cleanup(func() { c.deleteService(t, svc.Name) })
	c.scale(t, svc, c.bed.A2, c.bed.B2)
	frontends := append(clusterIPs(t, svc), c.nodePorts(t, svc)...)
	c.appears(t, frontends, c.bed.A2, c.bed.B2)
	c.label(t, svc.Name, label, "another-proxy")
	c.disappears(t, frontends, testbed.ErrRefused)
	c.label(t, svc.Name, label, "")
	c.appears(t, frontends, c.bed.A2, c.bed.B2)
}

// testHeadlessSlice labels one of two slices of a Service as belonging to a headless one, while it is in use.
func testHeadlessSlice(t *testing.T, c *cluster) {
	svc := c.apply(t, newService("headless", corev1.ServiceTypeClusterIP))
	t.Cleanup(func() { c.deleteService(t, svc.Name) })
	c.scale(t, svc, c.bed.A1)
	extra := newSlice(svc, corev1.IPv4Protocol, netip.IPv4Unspecified(), c.bed.B1)
	extra.Name += "-extra"
	plain := extra.DeepCopy()
	metav1.SetMetaDataLabel(&extra.ObjectMeta, "service.kubernetes.io/headless", "")

	both := clusterIPs(t, svc)
	ipv4, ipv6 := both[:1], both[1:]
	for _, step := range []struct {
		slice *discoveryv1.EndpointSlice
		pods  []*testbed.Host
	}{
		{plain, []*testbed.Host{c.bed.A1, c.bed.B1}},
		{extra, []*testbed.Host{c.bed.A1}},
		{plain, []*testbed.Host{c.bed.A1, c.bed.B1}},
	} {
		c.applySlice(t, step.slice)
		c.appears(t, ipv4, step.pods...)
		c.appears(t, ipv6, c.bed.A1)
	}
	if err := controlplane.DeleteSlice(t.Context(), c.client, namespace, extra.Name); err != nil {
		t.Fatal(err)
	}
	c.follows(t, ipv4, c.bed.A1)
}
