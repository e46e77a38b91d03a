//go:build e2e && linux

package apitest

import (
	"context"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// newService returns a dual-stack Service of the type with port 80, for pods that listen on podPort.
func newService(name string, typ corev1.ServiceType) *corev1.Service {
	return controlplane.NewService(namespace, name, typ, controlplane.TCP(80, podPort))
}

// apply stores the Service and returns what the API server made of it.
func (c *cluster) apply(t *testing.T, svc *corev1.Service) *corev1.Service {
	t.Helper()
	stored, err := controlplane.ApplyService(t.Context(), c.client, svc)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// label sets a label of the stored Service, or with the value "" takes it away.
func (c *cluster) label(t *testing.T, name, key, value string) {
	t.Helper()
	svc, err := c.client.CoreV1().Services(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	delete(svc.Labels, key)
	if value != "" {
		metav1.SetMetaDataLabel(&svc.ObjectMeta, key, value)
	}
	c.apply(t, svc)
}

// scale makes the pods the endpoints of the Service, in both families.
func (c *cluster) scale(t *testing.T, svc *corev1.Service, pods ...*testbed.Host) {
	t.Helper()
	for family, like := range map[corev1.IPFamily]netip.Addr{
		corev1.IPv4Protocol: netip.IPv4Unspecified(), corev1.IPv6Protocol: netip.IPv6Unspecified(),
	} {
		c.applySlice(t, newSlice(svc, family, like, pods...))
	}
}

// newSlice returns a slice with the pods' addresses of one family.
func newSlice(svc *corev1.Service, family corev1.IPFamily, like netip.Addr, pods ...*testbed.Host) *discoveryv1.EndpointSlice {
	var endpoints []controlplane.Endpoint
	for _, p := range pods {
		endpoints = append(endpoints, controlplane.ReadyEndpoint(p.Addr(like), p.Node.Name))
	}
	return controlplane.NewSlice(svc, family, endpoints...)
}

func (c *cluster) applySlice(t *testing.T, slice *discoveryv1.EndpointSlice) {
	t.Helper()
	if _, err := controlplane.ApplySlice(t.Context(), c.client, slice); err != nil {
		t.Fatal(err)
	}
}

// setIngress publishes the addresses as the load balancer of the Service.
func (c *cluster) setIngress(t *testing.T, svc *corev1.Service, addrs ...netip.Addr) {
	t.Helper()
	err := controlplane.SetLoadBalancerIPs(t.Context(), c.client, svc.Namespace, svc.Name, addrs...)
	if err != nil {
		t.Fatal(err)
	}
}

// deleteService deletes the Service, also when the test is over.
func (c *cluster) deleteService(t *testing.T, name string) {
	t.Helper()
	if err := controlplane.DeleteService(context.WithoutCancel(t.Context()), c.client, namespace, name); err != nil {
		t.Error(err)
	}
}

// clusterIPs returns the Service's frontends inside the cluster, one of each family.
func clusterIPs(t *testing.T, svc *corev1.Service) []netip.AddrPort {
	t.Helper()
	var addrs []netip.Addr
	for _, text := range svc.Spec.ClusterIPs {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	if len(addrs) != len(serviceCIDRs) {
		t.Fatalf("Service %s has cluster IPs %v, want one of each family", svc.Name, addrs)
	}
	return at(uint16(svc.Spec.Ports[0].Port), addrs...)
}

// nodePorts returns the Service's frontends on both nodes, in both families.
func (c *cluster) nodePorts(t *testing.T, svc *corev1.Service) []netip.AddrPort {
	t.Helper()
	port := uint16(svc.Spec.Ports[0].NodePort)
	if port == 0 {
		t.Fatalf("Service %s has no node port", svc.Name)
	}
	return at(port, c.bed.N1.Addr4, c.bed.N1.Addr6, c.bed.N2.Addr4, c.bed.N2.Addr6)
}
