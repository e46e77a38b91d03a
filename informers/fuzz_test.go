package informers

import (
	"net/netip"
	"testing"
	"testing/fstest"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-hop/kube-hop/lb"
)

func checkAddrs(t *testing.T, what string, as []netip.Addr) {
	t.Helper()
	for _, a := range as {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			t.Errorf("%s: address %q", what, a)
		}
	}
}

func checkPrefixes(t *testing.T, what string, ps []netip.Prefix) {
	t.Helper()
	for _, p := range ps {
		if !p.IsValid() || p != p.Masked() {
			t.Errorf("%s: prefix %q", what, p)
		}
		checkAddrs(t, what, []netip.Addr{p.Addr()})
	}
}

func checkName(t *testing.T, n lb.Name) {
	t.Helper()
	if n.Name == "" || n.Namespace == "" {
		t.Errorf("name %+v", n)
	}
}

// checkService checks the invariants that package lb states.
func checkService(t *testing.T, s lb.Service) {
	t.Helper()
	checkName(t, s.Name)
	checkAddrs(t, "clusterIPs", s.ClusterIPs)
	checkAddrs(t, "externalIPs", s.ExternalIPs)
	checkAddrs(t, "load balancer IPs", s.LoadBalancerIPs)
	checkPrefixes(t, "source ranges", s.SourceRanges)
	if len(s.ClusterIPs) > 2 || len(s.ClusterIPs) == 2 && lb.FamilyOf(s.ClusterIPs[0]) == lb.FamilyOf(s.ClusterIPs[1]) {
		t.Errorf("cluster IPs %v", s.ClusterIPs)
	}
	if s.Affinity < 0 || s.Affinity.Seconds() > maxAffinity {
		t.Errorf("affinity %v", s.Affinity)
	}
	if len(s.Scheduler) > maxScheduler {
		t.Errorf("scheduler %q", s.Scheduler)
	}
	for _, p := range s.Ports {
		if p.Port == 0 || p.Proto != lb.TCP && p.Proto != lb.UDP && p.Proto != lb.SCTP {
			t.Errorf("port %+v", p)
		}
	}
}

func checkSlice(t *testing.T, s lb.EndpointSlice) {
	t.Helper()
	checkName(t, s.Name)
	checkName(t, s.Service)
	for _, e := range s.Endpoints {
		checkAddrs(t, "endpoint", []netip.Addr{e.Addr})
		if lb.FamilyOf(e.Addr) != s.Family {
			t.Errorf("%v in a slice of %v", e.Addr, s.Family)
		}
	}
	for _, p := range s.Ports {
		if p.Port == 0 {
			t.Errorf("port %+v", p)
		}
	}
}

// FuzzLoadYAML reads any bytes as a file: no panic, and what comes out keeps the invariants of package lb.
func FuzzLoadYAML(f *testing.F) {
	for _, s := range []string{
		webYAML, nodeYAML, svcYAML("a", "None"), "kind: List\napiVersion: v1\nitems: [null, 1, {}]",
		"a: &a [*a]", "--- {kind: Service}\n...\n%YAML 1.2\n---\n- x", "kind: Service\nkind: Node\n",
		`{"apiVersion":"v1","kind":"ServiceList","items":[{"metadata":{"name":"a"},"spec":{"clusterIP":"::ffff:1.2.3.4"}}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := fstest.MapFS{
			"a.yaml": &fstest.MapFile{Data: data},
			"b.json": &fstest.MapFile{Data: data},
		}
		s, problems, err := Load(fsys, "node-1")
		if err != nil {
			t.Fatal(err)
		}
		for _, svc := range s.Services {
			checkService(t, svc)
		}
		for _, slice := range s.Slices {
			checkSlice(t, slice)
		}
		checkAddrs(t, "node", s.Node.Addresses)
		checkPrefixes(t, "pod CIDRs", s.Node.PodCIDRs)
		checkPrefixes(t, "service CIDRs", s.ServiceCIDRs)
		if s.Node.Name != "node-1" {
			t.Errorf("node %q", s.Node.Name)
		}
		for _, p := range problems {
			if p.File == "" || p.Message == "" {
				t.Errorf("problem %+v", p)
			}
		}
	})
}

// FuzzFromService puts any text where the API has free text.
func FuzzFromService(f *testing.F) {
	f.Add("10.96.0.1", "fd00::1", "IPv4", "192.0.2.1", "10.0.0.0/8", "rr", "TCP", int32(80), int32(30080), int32(10800))
	f.Add("010.0.0.1", "::ffff:10.0.0.1", "IPv6", " ", " ::ffff:0:0/90 ", "x y", "", int32(-1), int32(70000), int32(0))
	f.Fuzz(func(t *testing.T, ip, ip2, family, external, cidr, scheduler, proto string, port, nodePort, timeout int32) {
		s := webService()
		s.Annotations = map[string]string{AnnotationScheduler: scheduler}
		s.Spec = corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ClusterIP: ip, ClusterIPs: []string{ip, ip2, external},
			IPFamilies:               []corev1.IPFamily{corev1.IPFamily(family), corev1.IPv6Protocol, corev1.IPv4Protocol},
			ExternalIPs:              []string{external, ip2},
			LoadBalancerSourceRanges: []string{cidr, ip + "/" + cidr},
			Ports: []corev1.ServicePort{
				{Protocol: corev1.Protocol(proto), Port: port, NodePort: nodePort}, {Name: proto, Port: nodePort},
			},
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: nodePort,
			SessionAffinity:       corev1.ServiceAffinityClientIP,
			SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}},
		}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip2}, {IP: cidr}}
		if got, _, ok := FromService(s); ok {
			checkService(t, got)
		}
		s.Spec.IPFamilies = nil
		if got, _, ok := FromService(s); ok {
			checkService(t, got)
		}
	})
}

// FuzzFromEndpointSlice puts any text where the API has free text.
func FuzzFromEndpointSlice(f *testing.F) {
	f.Add("web", "IPv4", "10.244.1.5", "fd00::1", "http", "TCP", int32(8080))
	f.Add("", "FQDN", "::ffff:10.0.0.1", "fe80::1%eth0", "", "x", int32(0))
	f.Fuzz(func(t *testing.T, service, family, a, b, name, proto string, port int32) {
		s := webSlice()
		s.Labels[discoveryv1.LabelServiceName] = service
		s.AddressType = discoveryv1.AddressType(family)
		s.Ports = []discoveryv1.EndpointPort{
			{Name: &name, Protocol: (*corev1.Protocol)(&proto), Port: &port}, {Name: &name}, {Port: &port},
		}
		s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{a, b}}, {Addresses: []string{b}}, {}}
		if got, _, ok := FromEndpointSlice(s); ok {
			checkSlice(t, got)
		}
	})
}

// FuzzAddr: what the strict parser of net/netip accepts means the same here, and printing and parsing are inverse.
func FuzzAddr(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "010.0.0.1", "::ffff:010.0.0.1", "fd00::1/64", "10.0.0.0/08", "fe80::1%a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, ok := parseAddr(s); ok {
			checkAddrs(t, "parsed", []netip.Addr{a})
			if again, ok := parseAddr(a.String()); !ok || again != a {
				t.Errorf("%q: %v, then %v", s, a, again)
			}
		} else if _, err := netip.ParseAddr(s); err == nil && netip.MustParseAddr(s).Zone() == "" {
			t.Errorf("%q refused", s)
		}
		if p, ok := parsePrefix(s); ok {
			checkPrefixes(t, "parsed", []netip.Prefix{p})
			if again, ok := parsePrefix(p.String()); !ok || again != p {
				t.Errorf("%q: %v, then %v", s, p, again)
			}
		}
	})
}
