package informers

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/lb"
)

const (
	// LabelProxyName marks a Service that another proxy serves, whatever its value. Source: k8s.io/kubernetes
	// pkg/proxy/apis/well_known_labels.go.
	LabelProxyName = "service.kubernetes.io/service-proxy-name"
)

const (
	// defaultAffinity is core/v1 DefaultClientIPServiceAffinitySeconds.
	defaultAffinity = time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
	// maxAffinity is the longest timeout in seconds that the API admits: core/v1 ClientIPConfig.
	maxAffinity = 86400
)

// FromService translates a Service. The bool is false when no frontend of it may be programmed: it is headless, an
// ExternalName, without clusterIP or without name, or another proxy serves it. Addresses keep their order and are
// not deduplicated.
func FromService(obj *corev1.Service) (lb.Service, []Problem, bool) {
	r := &report{kind: kindService, namespace: obj.Namespace, name: obj.Name, uid: string(obj.UID)}
	if !isProxied(obj) {
		return lb.Service{}, nil, false
	}
	if !r.named() {
		return lb.Service{}, r.problems, false
	}
	spec := &obj.Spec
	s := lb.Service{
		Name:            lb.Name{Namespace: obj.Namespace, Name: obj.Name},
		UID:             string(obj.UID),
		ClusterIPs:      r.clusterIPs(spec),
		ExternalIPs:     r.externalIPs(spec.ExternalIPs),
		LoadBalancerIPs: r.loadBalancerIPs(obj.Status.LoadBalancer.Ingress),
		SourceRanges:    r.prefixes("spec.loadBalancerSourceRanges", spec.LoadBalancerSourceRanges),
		Ports:           r.servicePorts(spec.Ports),
		InternalLocal:   r.internalLocal(spec.InternalTrafficPolicy),
		ExternalLocal:   r.externalLocal(spec),
		Affinity:        r.affinity(spec),
		Scheduler:       r.scheduler(obj.Annotations),
		Weights:         r.weights(obj.Annotations),
		LocalListener:   r.localListener(obj.Annotations),
	}
	s.SchedulerFlags = r.schedulerFlags(obj.Annotations, s)
	if !obj.CreationTimestamp.IsZero() {
		s.Created = obj.CreationTimestamp.Unix()
	}
	if s.ExternalLocal && spec.Type == corev1.ServiceTypeLoadBalancer {
		s.HealthCheckNodePort = r.optionalPort("spec.healthCheckNodePort", spec.HealthCheckNodePort)
	}
	return s, r.problems, true
}

// isProxied decides on the Service as a whole (label, type, clusterIP).
func isProxied(obj *corev1.Service) bool {
	if _, other := obj.Labels[LabelProxyName]; other {
		return false
	}
	ip := obj.Spec.ClusterIP
	return obj.Spec.Type != corev1.ServiceTypeExternalName && ip != "" && ip != corev1.ClusterIPNone
}

// named reports whether the object has namespace and name; without them there is no key.
func (r *report) named() bool {
	switch {
	case r.name == "":
		r.add("metadata.name", "", wantName)
	case r.namespace == "":
		r.add("metadata.namespace", "", wantName)
	default:
		return true
	}
	return false
}

// clusterIPs returns the cluster IP of each family: clusterIPs[i], where i is the index of the family in ipFamilies.
// Objects from before dual-stack have no ipFamilies; there the family of clusterIP decides.
func (r *report) clusterIPs(spec *corev1.ServiceSpec) []netip.Addr {
	if len(spec.IPFamilies) == 0 {
		if a, ok := r.addr("spec.clusterIP", spec.ClusterIP); ok {
			return []netip.Addr{a}
		}
		return nil
	}
	var out []netip.Addr
	for i, f := range spec.IPFamilies {
		family, ok := parseFamily(string(f))
		if !ok {
			r.add(item("spec.ipFamilies", i), string(f), "must be IPv4 or IPv6")
			continue
		}
		if i >= len(spec.ClusterIPs) || slices.Contains(spec.IPFamilies[:i], f) {
			continue
		}
		if a, ok := r.addrOf(family, item("spec.clusterIPs", i), spec.ClusterIPs[i]); ok {
			out = append(out, a)
		}
	}
	return out
}

func parseFamily(s string) (lb.Family, bool) {
	switch s {
	case "IPv4":
		return lb.IPv4, true
	case "IPv6":
		return lb.IPv6, true
	}
	return 0, false
}

func (r *report) externalIPs(entries []string) []netip.Addr {
	var out []netip.Addr
	for i, s := range entries {
		if strings.TrimSpace(s) == "" {
			continue
		}
		if a, ok := r.addr(item("spec.externalIPs", i), s); ok {
			out = append(out, a)
		}
	}
	return out
}

// loadBalancerIPs leaves out entries with ipMode Proxy: their packets have to reach the load balancer (KEP-1860).
func (r *report) loadBalancerIPs(ingress []corev1.LoadBalancerIngress) []netip.Addr {
	var out []netip.Addr
	for i, in := range ingress {
		if in.IP == "" || in.IPMode != nil && *in.IPMode != corev1.LoadBalancerIPModeVIP {
			continue
		}
		if a, ok := r.addr(item("status.loadBalancer.ingress", i)+".ip", in.IP); ok {
			out = append(out, a)
		}
	}
	return out
}

// servicePorts drops ports that contradict an earlier one: of one protocol, neither name nor number may appear twice.
// The API server sees to that, a folder may not; the core identifies a port by (name, protocol).
func (r *report) servicePorts(ports []corev1.ServicePort) []lb.ServicePort {
	out := make([]lb.ServicePort, 0, len(ports))
	for i, p := range ports {
		field := item("spec.ports", i)
		proto, okProto := r.proto(field+".protocol", string(p.Protocol))
		number, okPort := r.port(field+".port", p.Port)
		if !okProto || !okPort {
			continue
		}
		sp := lb.ServicePort{Name: p.Name, Proto: proto, Port: number}
		if slices.ContainsFunc(out, func(o lb.ServicePort) bool {
			return o.Proto == sp.Proto && (o.Name == sp.Name || o.Port == sp.Port)
		}) {
			r.add(field, p.Name+" "+strconv.Itoa(int(number))+"/"+proto.String(), "must differ from the ports before it")
			continue
		}
		sp.NodePort = r.optionalPort(field+".nodePort", p.NodePort)
		out = append(out, sp)
	}
	return out
}

func (r *report) internalLocal(p *corev1.ServiceInternalTrafficPolicy) bool {
	if p == nil {
		return false
	}
	switch *p {
	case corev1.ServiceInternalTrafficPolicyLocal:
		return true
	case "", corev1.ServiceInternalTrafficPolicyCluster:
	default:
		r.add("spec.internalTrafficPolicy", string(*p), "must be Cluster or Local")
	}
	return false
}

// externalLocal is externalTrafficPolicy: Local for the Services for which it counts: those that can be reached from
// outside (k8s.io/kubernetes pkg/api/v1/service, ExternallyAccessible).
func (r *report) externalLocal(spec *corev1.ServiceSpec) bool {
	switch spec.ExternalTrafficPolicy {
	case corev1.ServiceExternalTrafficPolicyLocal:
		return spec.Type == corev1.ServiceTypeLoadBalancer || spec.Type == corev1.ServiceTypeNodePort ||
			len(spec.ExternalIPs) > 0
	case "", corev1.ServiceExternalTrafficPolicyCluster:
	default:
		r.add("spec.externalTrafficPolicy", string(spec.ExternalTrafficPolicy), "must be Cluster or Local")
	}
	return false
}

func (r *report) affinity(spec *corev1.ServiceSpec) time.Duration {
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityClientIP:
	case "", corev1.ServiceAffinityNone:
		return 0
	default:
		r.add("spec.sessionAffinity", string(spec.SessionAffinity), "must be None or ClientIP")
		return 0
	}
	c := spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		return defaultAffinity
	}
	n := *c.ClientIP.TimeoutSeconds
	if n < 1 || n > maxAffinity {
		r.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds", strconv.Itoa(int(n)),
			"must be 1 to 86400, so 10800 is used")
		return defaultAffinity
	}
	return time.Duration(n) * time.Second
}
