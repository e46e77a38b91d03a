//go:build e2e && linux

package parity

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// service is a Service that a row stored in the API server, with an external IP and a load balancer IP of its own in
// each family.
type service struct {
	*corev1.Service

	row *row
	// external and balancer are its addresses of those kinds, IPv4 first.
	external, balancer []netip.Addr
}

// option changes a Service before it is stored.
type option func(*corev1.Service)

// clusterIPOnly makes a Service without external frontends.
func clusterIPOnly(s *corev1.Service) {
	s.Spec.Type, s.Spec.ExternalIPs = corev1.ServiceTypeClusterIP, nil
}

// etpLocal and itpLocal set the traffic policies, which are Cluster otherwise.
func etpLocal(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func itpLocal(s *corev1.Service) {
	s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
}

// sourceRanges sets loadBalancerSourceRanges.
func sourceRanges(cidrs ...string) option {
	return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = cidrs }
}

// over gives the Service port 80 of each of the protocols, in place of TCP alone.
func over(protos ...testbed.Proto) option {
	return func(s *corev1.Service) {
		s.Spec.Ports = nil
		for _, p := range protos {
			port := controlplane.TCP(80, podPort)
			port.Protocol, port.Name = corev1.Protocol(p), strings.ToLower(string(p))
			s.Spec.Ports = append(s.Spec.Ports, port)
		}
	}
}

// affinity sets sessionAffinity ClientIP with the timeout in seconds.
func affinity(seconds int32) option {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
}

// annotated sets an annotation.
func annotated(key, value string) option {
	return func(s *corev1.Service) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, key, value) }
}

// families4 and families6 make a Service of one family.
func families4(s *corev1.Service) { singleFamily(s, corev1.IPv4Protocol) }

func families6(s *corev1.Service) { singleFamily(s, corev1.IPv6Protocol) }

func singleFamily(s *corev1.Service, f corev1.IPFamily) {
	s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = []corev1.IPFamily{f}, new(corev1.IPFamilyPolicySingleStack)
}

// service stores a Service until the end of the row: dual-stack, TCP port 80 for podPort, and with all frontends, so
// of type LoadBalancer with an external IP and a load balancer IP, unless options say otherwise. Call settle when all
// is stored that the test needs.
func (r *row) service(name string, opts ...option) *service {
	r.Helper()
	s := r.unbalanced(name, opts...)
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		s.ingress(s.balancer...)
	}
	return s
}

// unbalanced is service without publishing the load balancer IPs.
func (r *row) unbalanced(name string, opts ...option) *service {
	r.Helper()
	r.services++
	n := r.services
	if n > 250 {
		r.Fatalf("more Services than addresses")
	}
	s := &service{
		row:      r,
		external: addrs(fmt.Sprintf("198.51.100.%d", n), fmt.Sprintf("fd98::e:%x", n)),
		balancer: addrs(fmt.Sprintf("203.0.113.%d", n), fmt.Sprintf("fd98::b:%x", n)),
	}
	want := controlplane.NewService(namespace, name, corev1.ServiceTypeLoadBalancer, controlplane.TCP(80, podPort))
	for _, a := range s.external {
		want.Spec.ExternalIPs = append(want.Spec.ExternalIPs, a.String())
	}
	for _, o := range opts {
		o(want)
	}
	ctx := context.WithoutCancel(r.Context())
	var err error
	s.Service, err = controlplane.ApplyService(ctx, r.client, want)
	r.must(err)
	r.Cleanup(func() { s.delete() })
	return s
}

func addrs(text ...string) (out []netip.Addr) {
	for _, t := range text {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// ingress publishes load balancer IPs.
func (s *service) ingress(addrs ...netip.Addr) {
	s.row.Helper()
	s.row.must(controlplane.SetLoadBalancerIPs(s.row.Context(), s.row.client, namespace, s.Name, addrs...))
}

// ingressMode publishes load balancer IPs with an ipMode.
func (s *service) ingressMode(mode corev1.LoadBalancerIPMode, addrs ...netip.Addr) {
	s.row.Helper()
	services := s.row.client.CoreV1().Services(namespace)
	s.row.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		got, err := services.Get(s.row.Context(), s.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		got.Status.LoadBalancer.Ingress = nil
		for _, a := range addrs {
			ingress := corev1.LoadBalancerIngress{IP: a.String(), IPMode: &mode}
			got.Status.LoadBalancer.Ingress = append(got.Status.LoadBalancer.Ingress, ingress)
		}
		_, err = services.UpdateStatus(s.row.Context(), got, metav1.UpdateOptions{})
		return err
	}))
}

// update changes the stored Service.
func (s *service) update(change func(*corev1.Service)) {
	s.row.Helper()
	services := s.row.client.CoreV1().Services(namespace)
	s.row.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		got, err := services.Get(s.row.Context(), s.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(got)
		got, err = services.Update(s.row.Context(), got, metav1.UpdateOptions{})
		if err == nil {
			s.Service = got
		}
		return err
	}))
}

// recreate deletes the Service, but not its slices, and stores it again as it was.
func (s *service) recreate(spec corev1.ServiceSpec) {
	s.row.Helper()
	ctx := s.row.Context()
	s.row.must(controlplane.DeleteService(ctx, s.row.client, namespace, s.Name))
	again := controlplane.NewService(namespace, s.Name, spec.Type)
	again.Spec = spec
	_, err := controlplane.ApplyService(ctx, s.row.client, again)
	s.row.must(err)
	s.ingress(s.balancer...)
}

// delete deletes the Service and its slices. Deleting twice is harmless.
func (s *service) delete() {
	if err := s.remove(context.WithoutCancel(s.row.Context())); err != nil {
		s.row.Errorf("%v", err)
	}
}

func (s *service) remove(ctx context.Context) error {
	errs := []error{controlplane.DeleteService(ctx, s.row.client, namespace, s.Name)}
	for family := range families() {
		name := s.Name + "-" + strings.ToLower(string(family))
		errs = append(errs, controlplane.DeleteSlice(ctx, s.row.client, namespace, name))
	}
	return errors.Join(errs...)
}

// endpoint is a pod, or a node for a pod on its network, as an endpoint of a Service.
type endpoint struct {
	host                        *testbed.Host
	ready, serving, terminating bool
	zones, nodes                []string // hints
}

// ready, terminating (still serving) and unready are the states that an endpoint is in.
func ready(h *testbed.Host) endpoint { return endpoint{host: h, ready: true, serving: true} }

func terminating(h *testbed.Host) endpoint {
	return endpoint{host: h, serving: true, terminating: true}
}
func unready(h *testbed.Host) endpoint { return endpoint{host: h} }

// pods returns ready endpoints.
func pods(hosts ...*testbed.Host) (out []endpoint) {
	for _, h := range hosts {
		out = append(out, ready(h))
	}
	return out
}

// forZones and forNodes give an endpoint hints.
func (e endpoint) forZones(zones ...string) endpoint { e.zones = zones; return e }
func (e endpoint) forNodes(nodes ...string) endpoint { e.nodes = nodes; return e }

// endpoints makes these the endpoints of the Service, in its families. Call settle afterwards.
func (s *service) endpoints(endpoints ...endpoint) {
	s.row.Helper()
	for _, family := range s.Spec.IPFamilies {
		slice := controlplane.NewSlice(s.Service, family)
		for _, e := range endpoints {
			slice.Endpoints = append(slice.Endpoints, e.object(families()[family]))
		}
		_, err := controlplane.ApplySlice(context.WithoutCancel(s.row.Context()), s.row.client, slice)
		s.row.must(err)
	}
}

func (e endpoint) object(like netip.Addr) discoveryv1.Endpoint {
	node := e.host.Node
	if node == nil {
		node = e.host
	}
	out := discoveryv1.Endpoint{
		Addresses: []string{e.host.Addr(like).String()},
		NodeName:  &node.Name,
		Conditions: discoveryv1.EndpointConditions{
			Ready: &e.ready, Serving: &e.serving, Terminating: &e.terminating,
		},
	}
	if len(e.zones)+len(e.nodes) == 0 {
		return out
	}
	out.Hints = &discoveryv1.EndpointHints{}
	for _, z := range e.zones {
		out.Hints.ForZones = append(out.Hints.ForZones, discoveryv1.ForZone{Name: z})
	}
	for _, n := range e.nodes {
		out.Hints.ForNodes = append(out.Hints.ForNodes, discoveryv1.ForNode{Name: n})
	}
	return out
}
