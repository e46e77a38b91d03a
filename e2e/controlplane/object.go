package controlplane

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// NewService returns a Service of the type with the ports, in as many families as the API server has ranges.
// It has no selector: there is no controller to act on one.
func NewService(namespace, name string, typ corev1.ServiceType, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{
			Type:           typ,
			Ports:          ports,
			IPFamilyPolicy: new(corev1.IPFamilyPolicyPreferDualStack),
		},
	}
}

// TCP returns a Service port that leads to the endpoints' port target. Name it if the Service has another one.
func TCP(port, target int32) corev1.ServicePort {
	return corev1.ServicePort{Protocol: corev1.ProtocolTCP, Port: port, TargetPort: intstr.FromInt32(target)}
}

// UDP is TCP for UDP.
func UDP(port, target int32) corev1.ServicePort {
	return corev1.ServicePort{Protocol: corev1.ProtocolUDP, Port: port, TargetPort: intstr.FromInt32(target)}
}

// Endpoint is one address of an EndpointSlice with its conditions.
type Endpoint struct {
	Addr        netip.Addr
	Node        string // name of the node it is on; "" if none is known
	Ready       bool
	Serving     bool // ready but for the fact that it may be terminating
	Terminating bool
}

// ReadyEndpoint returns an endpoint that is ready and serving.
func ReadyEndpoint(addr netip.Addr, node string) Endpoint {
	return Endpoint{Addr: addr, Node: node, Ready: true, Serving: true}
}

// TerminatingEndpoint returns an endpoint that is shutting down and still serves.
func TerminatingEndpoint(addr netip.Addr, node string) Endpoint {
	return Endpoint{Addr: addr, Node: node, Serving: true, Terminating: true}
}

// NewSlice returns an EndpointSlice for the Service, named after it and the family, such as web-ipv4. The
// endpoints must be of that family. Its ports are the Service's target ports, which must be numbers.
func NewSlice(svc *corev1.Service, family corev1.IPFamily, endpoints ...Endpoint) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace,
			Name:      svc.Name + "-" + strings.ToLower(string(family)),
			Labels: map[string]string{
				discoveryv1.LabelServiceName: svc.Name,
				discoveryv1.LabelManagedBy:   "kube-hop-test",
			},
		},
		AddressType: discoveryv1.AddressType(family), // both enumerations spell the families alike
	}
	for _, port := range svc.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name:     new(port.Name),
			Protocol: new(port.Protocol),
			Port:     new(port.TargetPort.IntVal),
		})
	}
	for _, e := range endpoints {
		slice.Endpoints = append(slice.Endpoints, e.object())
	}
	return slice
}

func (e Endpoint) object() discoveryv1.Endpoint {
	object := discoveryv1.Endpoint{
		Addresses: []string{e.Addr.String()},
		Conditions: discoveryv1.EndpointConditions{
			Ready:       new(e.Ready),
			Serving:     new(e.Serving),
			Terminating: new(e.Terminating),
		},
	}
	if e.Node != "" {
		object.NodeName = new(e.Node)
	}
	return object
}

// NewNode returns a Node with the InternalIPs, the address of the main family first.
func NewNode(name string, addrs ...netip.Addr) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   name,
		Labels: map[string]string{corev1.LabelHostname: name},
	}}
	for _, addr := range addrs {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{
			Type:    corev1.NodeInternalIP,
			Address: addr.String(),
		})
	}
	return node
}
