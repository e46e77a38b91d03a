package informers

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/lb"
)

// An API server fills fields in before anybody sees an object. A folder has no API server, so this file does, as far
// as it matters to a proxy (k8s.io/kubernetes pkg/apis/core/v1/defaults.go and pkg/apis/discovery/v1/defaults.go).

func namespaceOr(namespace string) string {
	if namespace == "" {
		return metav1.NamespaceDefault
	}
	return namespace
}

// defaultService completes clusterIP and clusterIPs from each other, and ipFamilies from both.
func defaultService(s *corev1.Service) {
	s.Namespace = namespaceOr(s.Namespace)
	spec := &s.Spec
	if spec.ClusterIP == "" && len(spec.ClusterIPs) > 0 {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	if spec.ClusterIP == "" || spec.ClusterIP == corev1.ClusterIPNone {
		return
	}
	if len(spec.ClusterIPs) == 0 {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	if len(spec.IPFamilies) > 0 {
		return
	}
	for _, ip := range spec.ClusterIPs {
		a, ok := parseAddr(ip)
		if !ok {
			spec.IPFamilies = nil // FromService reports clusterIP
			return
		}
		spec.IPFamilies = append(spec.IPFamilies, corev1.IPFamily(lb.FamilyOf(a).String()))
	}
}

// defaultEndpointSlice gives the only port of a slice its name, the empty one. Protocols and conditions need no
// default: the conversion reads nil as the API does.
func defaultEndpointSlice(s *discoveryv1.EndpointSlice) {
	s.Namespace = namespaceOr(s.Namespace)
	for i := range s.Ports {
		if s.Ports[i].Name == nil {
			s.Ports[i].Name = new(string)
		}
	}
}

func servicePortNames(s *corev1.Service) []string {
	names := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		names[i] = p.Name
	}
	return names
}

func endpointPortNames(s *discoveryv1.EndpointSlice) []string {
	names := make([]string, len(s.Ports))
	for i, p := range s.Ports {
		if p.Name != nil {
			names[i] = *p.Name
		}
	}
	return names
}

// setService converts. In a folder a missing clusterIP is worth a word: nobody will allocate one.
func (o *object) setService(s *corev1.Service) {
	defaultService(s)
	v, problems, proxied := FromService(s)
	o.problems = problems
	if proxied {
		o.value = v
		return
	}
	_, other := s.Labels[LabelProxyName]
	if s.Spec.ClusterIP == "" && s.Spec.Type != corev1.ServiceTypeExternalName && !other {
		r := &report{kind: o.kind, namespace: o.name.Namespace, name: o.name.Name}
		r.add("spec.clusterIP", "", "must be set, for no API server allocates one")
		o.problems = append(o.problems, r.problems...)
	}
}

func (o *object) setEndpointSlice(s *discoveryv1.EndpointSlice) {
	defaultEndpointSlice(s)
	v, problems, proxied := FromEndpointSlice(s)
	o.problems = problems
	if proxied {
		o.value = v
	}
}
