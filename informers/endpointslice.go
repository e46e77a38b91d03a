package informers

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-hop/kube-hop/lb"
)

// LabelHeadless marks an EndpointSlice of a headless Service, whatever its value. Source: core/v1 IsHeadlessService.
const LabelHeadless = "service.kubernetes.io/headless"

// FromEndpointSlice translates an EndpointSlice. The bool is false when it has nothing to say to a proxy: it belongs
// to a headless Service or to none, has no name, or holds no IP addresses. Endpoints keep their order; nothing is
// deduplicated, for that takes all slices of a Service.
func FromEndpointSlice(obj *discoveryv1.EndpointSlice) (lb.EndpointSlice, []Problem, bool) {
	r := &report{kind: "EndpointSlice", namespace: obj.Namespace, name: obj.Name}
	if _, headless := obj.Labels[LabelHeadless]; headless {
		return lb.EndpointSlice{}, nil, false
	}
	if !r.named() {
		return lb.EndpointSlice{}, r.problems, false
	}
	service := obj.Labels[discoveryv1.LabelServiceName]
	if service == "" {
		r.add("metadata.labels["+discoveryv1.LabelServiceName+"]", "", wantName)
		return lb.EndpointSlice{}, r.problems, false
	}
	family, ok := parseFamily(string(obj.AddressType))
	if !ok {
		r.add("addressType", string(obj.AddressType), "must be IPv4 or IPv6")
		return lb.EndpointSlice{}, r.problems, false
	}
	return lb.EndpointSlice{
		Name:      lb.Name{Namespace: obj.Namespace, Name: obj.Name},
		Service:   lb.Name{Namespace: obj.Namespace, Name: service},
		Family:    family,
		Ports:     r.endpointPorts(obj.Ports),
		Endpoints: r.endpoints(family, obj.Endpoints),
		Triggered: triggered(obj),
	}, r.problems, true
}

// triggered reads when the change happened that the slice follows. The endpoints controllers write it; others need not,
// and what cannot be read is as good as missing.
func triggered(obj *discoveryv1.EndpointSlice) time.Time {
	t, err := time.Parse(time.RFC3339Nano, obj.Annotations[corev1.EndpointsLastChangeTriggerTime])
	if err != nil {
		return time.Time{}
	}
	return t
}

// endpointPorts skips ports without name and without number. A nil number means "all ports" in the API, which no
// Service port can refer to.
func (r *report) endpointPorts(ports []discoveryv1.EndpointPort) []lb.EndpointPort {
	out := make([]lb.EndpointPort, 0, len(ports))
	for i, p := range ports {
		field := item("ports", i)
		if p.Name == nil {
			r.add(field+".name", "", wantName+`, "" for the only port`)
			continue
		}
		var protocol string
		if p.Protocol != nil {
			protocol = string(*p.Protocol)
		}
		var n int32
		if p.Port != nil {
			n = *p.Port
		}
		proto, okProto := r.proto(field+".protocol", protocol)
		number, okPort := r.port(field+".port", n)
		if okProto && okPort {
			out = append(out, lb.EndpointPort{Name: *p.Name, Proto: proto, Port: number})
		}
	}
	return out
}

func (r *report) endpoints(family lb.Family, endpoints []discoveryv1.Endpoint) []lb.Endpoint {
	out := make([]lb.Endpoint, 0, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		if a, ok := r.endpointAddr(family, i, e.Addresses); ok {
			out = append(out, newEndpoint(a, e))
		}
	}
	return out
}

// endpointAddr takes the first address; further ones have no meaning (discovery/v1 Endpoint).
func (r *report) endpointAddr(family lb.Family, i int, addresses []string) (netip.Addr, bool) {
	// The field is printed only for a problem; with thousands of endpoints the text would cost more than the parsing.
	if len(addresses) > 0 {
		if a, err := netip.ParseAddr(addresses[0]); err == nil && isPlain(a) && lb.FamilyOf(a) == family {
			return a, true
		}
	}
	field := item("endpoints", i) + ".addresses"
	if len(addresses) == 0 {
		r.add(field, "", "must hold an address")
		return netip.Addr{}, false
	}
	return r.addrOf(family, item(field, 0), addresses[0])
}

// isPlain reports whether an address needs no second look.
func isPlain(a netip.Addr) bool {
	return a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
}

func newEndpoint(a netip.Addr, e *discoveryv1.Endpoint) lb.Endpoint {
	c := e.Conditions
	out := lb.Endpoint{
		Addr:        a,
		Ready:       c.Ready == nil || *c.Ready,
		Serving:     c.Serving == nil || *c.Serving,
		Terminating: c.Terminating != nil && *c.Terminating,
	}
	if e.NodeName != nil {
		out.NodeName = *e.NodeName
	}
	if e.Zone != nil {
		out.Zone = *e.Zone
	}
	if e.Hints == nil {
		return out
	}
	for _, z := range e.Hints.ForZones {
		out.HintZones = append(out.HintZones, z.Name)
	}
	for _, n := range e.Hints.ForNodes {
		out.HintNodes = append(out.HintNodes, n.Name)
	}
	return out
}
