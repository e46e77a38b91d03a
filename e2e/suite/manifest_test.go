//go:build e2e && linux

package suite

import (
	"bytes"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

type endpointPorts = []discoveryv1.EndpointPort

// manifest is a Service and its slices, written to one file.
type manifest struct {
	corev1.Service

	Slices []*discoveryv1.EndpointSlice
	number int
}

// newService returns a Service with every kind of frontend in both families, on port 80 of every protocol, with the
// pods as its endpoints. All addresses follow from the number, 1 to 250.
func newService(name string, number int, pods ...*testbed.Host) *manifest {
	m := &manifest{number: number}
	m.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	m.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: name}
	m.Spec = corev1.ServiceSpec{
		Type:        corev1.ServiceTypeLoadBalancer,
		ClusterIPs:  []string{m.addr(clusterIP, 4).String(), m.addr(clusterIP, 6).String()},
		IPFamilies:  []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
		ExternalIPs: []string{m.addr(externalIP, 4).String(), m.addr(externalIP, 6).String()},
	}
	m.Spec.ClusterIP = m.Spec.ClusterIPs[0]
	for _, family := range []int{4, 6} {
		m.Status.LoadBalancer.Ingress = append(m.Status.LoadBalancer.Ingress,
			corev1.LoadBalancerIngress{IP: m.addr(loadBalancer, family).String()})
	}
	for _, p := range protos {
		m.Spec.Ports = append(m.Spec.Ports, corev1.ServicePort{
			Name: portName(p), Protocol: corev1.Protocol(p), Port: 80, NodePort: m.nodePort(),
		})
	}
	return m.withPods(pods...)
}

// withPods replaces the slices by one of each family with these endpoints, all ready.
func (m *manifest) withPods(pods ...*testbed.Host) *manifest {
	m.Slices = nil
	for _, family := range []int{4, 6} {
		var ports endpointPorts
		for _, p := range protos {
			ports = append(ports, endpointPort(portName(p), p, podPort))
		}
		m.Slices = append(m.Slices, m.slice("main", family, ports, pods...))
	}
	return m
}

// slice returns a slice of the Service that is not yet part of it.
func (m *manifest) slice(name string, family int, ports endpointPorts, pods ...*testbed.Host) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: m.Namespace, Name: fmt.Sprintf("%s-%s-%d", m.Name, name, family),
			Labels: map[string]string{discoveryv1.LabelServiceName: m.Name},
		},
		AddressType: discoveryv1.AddressType(fmt.Sprintf("IPv%d", family)),
		Ports:       ports,
	}
	for _, pod := range pods {
		addr, node := pod.Addr4, pod.Node
		if family == 6 {
			addr = pod.Addr6
		}
		if node == nil { // it is a node, the endpoint a pod on its network
			node = pod
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{addr.String()}, NodeName: &node.Name,
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		})
	}
	return s
}

func endpointPort(name string, proto testbed.Proto, number int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Protocol: new(corev1.Protocol(proto)), Port: &number}
}

func portName(p testbed.Proto) string {
	return map[testbed.Proto]string{"TCP": "t", "UDP": "u", "SCTP": "s"}[p]
}

// text returns the file.
func (m *manifest) text() string {
	objects := []any{m.Service}
	for _, s := range m.Slices {
		objects = append(objects, s)
	}
	return documents(objects...)
}

// documents prints objects as one YAML file.
func documents(objects ...any) string {
	var b bytes.Buffer
	for _, o := range objects {
		doc, err := yaml.Marshal(o)
		if err != nil {
			panic(err) // a type that cannot be printed
		}
		b.WriteString("---\n")
		b.Write(doc)
	}
	return b.String()
}

// nodesManifest describes the nodes and the ranges of ClusterIPs.
func nodesManifest(nodes []*testbed.Host) string {
	objects := []any{networkingv1.ServiceCIDR{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"},
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd96::/112"}},
	}}
	for _, n := range nodes {
		node := corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: n.Name},
		}
		for _, a := range []netip.Addr{n.Addr4, n.Addr6} {
			node.Status.Addresses = append(node.Status.Addresses,
				corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
		}
		objects = append(objects, node)
	}
	return documents(objects...)
}
