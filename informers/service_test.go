package informers

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/lb"
)

var loosely = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmpopts.EquateEmpty(),
}

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func ranges(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func texts(problems []Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

// webService is a plain dual-stack Service that the cases change.
func webService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web", UID: "u1", CreationTimestamp: metav1.Unix(1700000000, 0),
		},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeClusterIP,
			ClusterIP:  "10.96.0.10",
			ClusterIPs: []string{"10.96.0.10", "fd00::10"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports:      []corev1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}},
		},
	}
}

func webModel() lb.Service {
	return lb.Service{
		Name: lb.Name{Namespace: "default", Name: "web"}, UID: "u1", Created: 1700000000,
		ClusterIPs: addrs("10.96.0.10", "fd00::10"),
		Ports:      []lb.ServicePort{{Name: "http", Proto: lb.TCP, Port: 80}},
	}
}

type serviceCase struct {
	name     string
	change   func(*corev1.Service)
	want     func(*lb.Service)
	problems []string
}

func (c serviceCase) run(t *testing.T) {
	t.Helper()
	obj, want := webService(), webModel()
	if c.change != nil {
		c.change(obj)
	}
	if c.want != nil {
		c.want(&want)
	}
	got, problems, ok := FromService(obj)
	if !ok {
		t.Fatal("not proxied")
	}
	if d := cmp.Diff(want, got, loosely); d != "" {
		t.Errorf("service (-want +got):\n%s", d)
	}
	if d := cmp.Diff(c.problems, texts(problems)); d != "" {
		t.Errorf("problems (-want +got):\n%s", d)
	}
}

func TestFromServiceNotProxied(t *testing.T) {
	for name, change := range map[string]func(*corev1.Service){
		"proxy name label":       func(s *corev1.Service) { s.Labels = map[string]string{LabelProxyName: "other"} },
		"empty proxy name label": func(s *corev1.Service) { s.Labels = map[string]string{LabelProxyName: ""} },
		"headless":               func(s *corev1.Service) { s.Spec.ClusterIP = "None" },
		"no cluster IP":          func(s *corev1.Service) { s.Spec.ClusterIP = "" },
		"ExternalName, left-over cluster IP": func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeExternalName
		},
		"no name":      func(s *corev1.Service) { s.Name = "" },
		"no namespace": func(s *corev1.Service) { s.Namespace = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := webService()
			change(s)
			if got, _, ok := FromService(s); ok {
				t.Errorf("proxied as %+v", got)
			}
		})
	}
}

func TestFromServiceClusterIPs(t *testing.T) {
	for _, c := range []serviceCase{
		{name: "dual-stack"},
		{
			name: "IPv6 first",
			change: func(s *corev1.Service) {
				s.Spec.ClusterIP = "fd00::10"
				s.Spec.ClusterIPs = []string{"fd00::10", "10.96.0.10"}
				s.Spec.IPFamilies = []corev1.IPFamily{"IPv6", "IPv4"}
			},
			want: func(s *lb.Service) { s.ClusterIPs = addrs("fd00::10", "10.96.0.10") },
		},
		{
			name:   "index out of range",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1] },
			want:   func(s *lb.Service) { s.ClusterIPs = addrs("10.96.0.10") },
		},
		{
			name:   "old object without ipFamilies",
			change: func(s *corev1.Service) { s.Spec.ClusterIP = "fd00::5"; s.Spec.IPFamilies = nil },
			want:   func(s *lb.Service) { s.ClusterIPs = addrs("fd00::5") },
		},
		{
			name:     "wrong family",
			change:   func(s *corev1.Service) { s.Spec.ClusterIPs[1] = "10.96.0.11" },
			want:     func(s *lb.Service) { s.ClusterIPs = addrs("10.96.0.10") },
			problems: []string{`Service default/web: spec.clusterIPs[1]: "10.96.0.11": must be an IPv6 address; ignored`},
		},
		{
			name:     "unknown family",
			change:   func(s *corev1.Service) { s.Spec.IPFamilies[1] = "IPv5" },
			want:     func(s *lb.Service) { s.ClusterIPs = addrs("10.96.0.10") },
			problems: []string{`Service default/web: spec.ipFamilies[1]: "IPv5": must be IPv4 or IPv6; ignored`},
		},
		{
			name:   "leading zeros",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs[0] = "010.096.000.010" },
		},
	} {
		t.Run(c.name, c.run)
	}
}

func TestFromServiceExternal(t *testing.T) {
	proxy, vip := corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP
	for _, c := range []serviceCase{
		{
			name: "externalIPs",
			change: func(s *corev1.Service) {
				s.Spec.ExternalIPs = []string{"192.0.2.1", "10.0.0.300", "", " ", "2001:DB8:0::1", "192.000.002.009", "::ffff:192.0.2.8", "fe80::1%eth0", "127.0.0.1", "0.0.0.0"}
			},
			want: func(s *lb.Service) {
				s.ExternalIPs = addrs("192.0.2.1", "2001:db8::1", "192.0.2.9", "192.0.2.8")
			},
			problems: []string{
				`Service default/web: spec.externalIPs[1]: "10.0.0.300": must be an IP address; ignored`,
				`Service default/web: spec.externalIPs[7]: "fe80::1%eth0": must be an IP address; ignored`,
				`Service default/web: spec.externalIPs[8]: "127.0.0.1": must not be an unspecified, loopback or multicast address; ignored`,
				`Service default/web: spec.externalIPs[9]: "0.0.0.0": must not be an unspecified, loopback or multicast address; ignored`,
			},
		},
		{
			name: "load balancer ingress",
			change: func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
					{IP: "198.51.100.1"},
					{Hostname: "lb.example.org"},
					{IP: "198.51.100.2", IPMode: &proxy},
					{IP: "2001:db8::2", IPMode: &vip, Ports: []corev1.PortStatus{{Port: 1}}},
					{IP: "lb"},
				}
			},
			want:     func(s *lb.Service) { s.LoadBalancerIPs = addrs("198.51.100.1", "2001:db8::2") },
			problems: []string{`Service default/web: status.loadBalancer.ingress[4].ip: "lb": must be an IP address; ignored`},
		},
		{
			name: "source ranges",
			change: func(s *corev1.Service) {
				s.Spec.LoadBalancerSourceRanges = []string{
					" 10.1.2.3/8\t", "", "  ", "10.0.0.1", "0.0.0.0/0", "2001:db8::1/32", "010.0.0.0/09", "::ffff:192.0.2.0/120",
				}
			},
			want: func(s *lb.Service) {
				s.SourceRanges = ranges("10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "10.0.0.0/9", "192.0.2.0/24")
			},
			problems: []string{
				`Service default/web: spec.loadBalancerSourceRanges[3]: "10.0.0.1": must be a CIDR, such as 10.0.0.0/8; ignored`,
			},
		},
	} {
		t.Run(c.name, c.run)
	}
}

func TestFromServicePorts(t *testing.T) {
	for _, c := range []serviceCase{
		{
			name: "bad ones do not affect the others",
			change: func(s *corev1.Service) {
				s.Spec.Ports = []corev1.ServicePort{
					{Name: "a", Port: 80, NodePort: 30080},
					{Name: "b", Protocol: "ICMP", Port: 81},
					{Name: "c", Protocol: "UDP", Port: 0},
					{Name: "d", Protocol: "SCTP", Port: 70000},
					{Name: "a", Port: 82},
					{Name: "e", Protocol: "TCP", Port: 80},
					{Name: "f", Protocol: "UDP", Port: 80, NodePort: -1},
				}
			},
			want: func(s *lb.Service) {
				s.Ports = []lb.ServicePort{
					{Name: "a", Proto: lb.TCP, Port: 80, NodePort: 30080},
					{Name: "f", Proto: lb.UDP, Port: 80},
				}
			},
			problems: []string{
				`Service default/web: spec.ports[1].protocol: "ICMP": must be TCP, UDP or SCTP; ignored`,
				`Service default/web: spec.ports[2].port: must be 1 to 65535; ignored`,
				`Service default/web: spec.ports[3].port: "70000": must be 1 to 65535; ignored`,
				`Service default/web: spec.ports[4]: "a 82/TCP": must differ from the ports before it; ignored`,
				`Service default/web: spec.ports[5]: "e 80/TCP": must differ from the ports before it; ignored`,
				`Service default/web: spec.ports[6].nodePort: "-1": must be 1 to 65535; ignored`,
			},
		},
	} {
		t.Run(c.name, c.run)
	}
}

func TestFromServicePolicies(t *testing.T) {
	local := func(typ corev1.ServiceType, external ...string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalIPs = typ, external
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.Spec.HealthCheckNodePort = 31000
		}
	}
	internal := corev1.ServiceInternalTrafficPolicyLocal
	typo := corev1.ServiceInternalTrafficPolicy("local")
	for _, c := range []serviceCase{
		{name: "ClusterIP: external policy does not count", change: local("ClusterIP")},
		{
			name: "ClusterIP with externalIPs", change: local("ClusterIP", "192.0.2.1"),
			want: func(s *lb.Service) { s.ExternalLocal, s.ExternalIPs = true, addrs("192.0.2.1") },
		},
		{name: "NodePort", change: local("NodePort"), want: func(s *lb.Service) { s.ExternalLocal = true }},
		{
			name: "LoadBalancer has a health check port", change: local("LoadBalancer"),
			want: func(s *lb.Service) { s.ExternalLocal, s.HealthCheckNodePort = true, 31000 },
		},
		{
			name:   "LoadBalancer with Cluster has none",
			change: func(s *corev1.Service) { s.Spec.Type, s.Spec.HealthCheckNodePort = "LoadBalancer", 31000 },
		},
		{
			name: "internal", change: func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &internal },
			want: func(s *lb.Service) { s.InternalLocal = true },
		},
		{
			name: "typos",
			change: func(s *corev1.Service) {
				s.Spec.InternalTrafficPolicy, s.Spec.ExternalTrafficPolicy, s.Spec.SessionAffinity = &typo, "Locl", "Client"
			},
			problems: []string{
				`Service default/web: spec.internalTrafficPolicy: "local": must be Cluster or Local; ignored`,
				`Service default/web: spec.externalTrafficPolicy: "Locl": must be Cluster or Local; ignored`,
				`Service default/web: spec.sessionAffinity: "Client": must be None or ClientIP; ignored`,
			},
		},
	} {
		t.Run(c.name, c.run)
	}
}

func TestFromServiceAffinity(t *testing.T) {
	affinity := func(c *corev1.SessionAffinityConfig) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = "ClientIP", c }
	}
	seconds := func(n int32) *corev1.SessionAffinityConfig {
		return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &n}}
	}
	is := func(d time.Duration) func(*lb.Service) { return func(s *lb.Service) { s.Affinity = d } }
	const path = `Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: `
	for _, c := range []serviceCase{
		{name: "without config", change: affinity(nil), want: is(3 * time.Hour)},
		{name: "without clientIP", change: affinity(&corev1.SessionAffinityConfig{}), want: is(3 * time.Hour)},
		{
			name:   "without timeout",
			change: affinity(&corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{}}), want: is(3 * time.Hour),
		},
		{name: "one second", change: affinity(seconds(1)), want: is(time.Second)},
		{name: "a day", change: affinity(seconds(86400)), want: is(24 * time.Hour)},
		{
			name: "too long", change: affinity(seconds(86401)), want: is(3 * time.Hour),
			problems: []string{path + `"86401": must be 1 to 86400, so 10800 is used; ignored`},
		},
		{
			name: "zero", change: affinity(seconds(0)), want: is(3 * time.Hour),
			problems: []string{path + `"0": must be 1 to 86400, so 10800 is used; ignored`},
		},
	} {
		t.Run(c.name, c.run)
	}
}

func TestFromServiceScheduler(t *testing.T) {
	annotated := func(kv ...string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Annotations = map[string]string{}
			for i := 0; i < len(kv); i += 2 {
				s.Annotations[kv[i]] = kv[i+1]
			}
		}
	}
	is := func(name string) func(*lb.Service) { return func(s *lb.Service) { s.Scheduler = name } }
	const path = `Service default/web: metadata.annotations[kube-hop.io/ipvs-scheduler]: `
	for _, c := range []serviceCase{
		{name: "ours", change: annotated(AnnotationScheduler, "wrr"), want: is("wrr")},
		{name: "of kube-router", change: annotated(AnnotationSchedulerKubeRouter, "lc"), want: is("lc")},
		{
			name:   "ours wins",
			change: annotated(AnnotationScheduler, "sh", AnnotationSchedulerKubeRouter, "lc"), want: is("sh"),
		},
		{
			name: "longest", change: annotated(AnnotationScheduler, "abcdefghijklmno"), want: is("abcdefghijklmno"),
		},
		{
			name: "too long", change: annotated(AnnotationScheduler, "abcdefghijklmnop"),
			problems: []string{path + `"abcdefghijklmnop": must be 1 to 15 letters a to z; ignored`},
		},
		{
			name: "not letters", change: annotated(AnnotationScheduler, "rr\n-F"),
			problems: []string{path + `"rr\n-F": must be 1 to 15 letters a to z; ignored`},
		},
	} {
		t.Run(c.name, c.run)
	}
}

func TestFromServiceWeights(t *testing.T) {
	annotated := func(text string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Annotations = map[string]string{AnnotationWeights: text} }
	}
	are := func(rules ...lb.WeightRule) func(*lb.Service) { return func(s *lb.Service) { s.Weights = rules } }
	problem := func(entry, allowed string) []string {
		return []string{`Service default/web: metadata.annotations[kube-hop.io/weights]: "` + entry + `": ` + allowed + `; no rule of this annotation counts; ignored`}
	}
	const selectors = "must select by local, zone=ZONE, node-label/KEY=VALUE or default"
	const number = "must have a weight from 0 to 65535 behind the colon"
	for _, c := range []serviceCase{
		{name: "empty", change: annotated(" , "), want: are()},
		{
			name:   "every kind",
			change: annotated("zone=eu-1a:3, node-label/example.com/disk=ssd : 65535 ,node-label/gpu=:2,local:7,default:0"),
			want: are(
				lb.WeightRule{Kind: lb.WeightZone, Value: "eu-1a", Weight: 3},
				lb.WeightRule{Kind: lb.WeightNodeLabel, Key: "example.com/disk", Value: "ssd", Weight: 65535},
				lb.WeightRule{Kind: lb.WeightNodeLabel, Key: "gpu", Weight: 2},
				lb.WeightRule{Kind: lb.WeightLocal, Weight: 7},
				lb.WeightRule{Kind: lb.WeightDefault},
			),
		},
		{name: "one wrong rule", change: annotated("zone=a:3,zone=b"), problems: problem("zone=b", "must be a selector, a colon and a weight, such as zone=a:3")},
		{name: "too large", change: annotated("zone=a:65536"), problems: problem("zone=a:65536", number)},
		{name: "negative", change: annotated("default:-1"), problems: problem("default:-1", number)},
		{name: "no number", change: annotated("default:x"), problems: problem("default:x", number)},
		{name: "no zone", change: annotated("zone=:1"), problems: problem("zone=:1", selectors)},
		{name: "no label", change: annotated("node-label/=a:1"), problems: problem("node-label/=a:1", selectors)},
		{name: "no value", change: annotated("node-label/a:1"), problems: problem("node-label/a:1", selectors)},
		{name: "unknown", change: annotated("region=a:1"), problems: problem("region=a:1", selectors)},
	} {
		t.Run(c.name, c.run)
	}
}

func TestFromServiceSchedulerFlags(t *testing.T) {
	annotated := func(text string, changes ...func(*corev1.Service)) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Annotations = map[string]string{AnnotationSchedulerFlags: text}
			for _, c := range changes {
				c(s)
			}
		}
	}
	are := func(f lb.SchedulerFlags, changes ...func(*lb.Service)) func(*lb.Service) {
		return func(s *lb.Service) {
			s.SchedulerFlags = f | lb.SchedulerFlagsSet
			for _, c := range changes {
				c(s)
			}
		}
	}
	udp := func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }
	isUDP := func(s *lb.Service) { s.Ports[0].Proto = lb.UDP }
	sticky := func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
	isSticky := func(s *lb.Service) { s.Affinity = 3 * time.Hour }
	const path = `Service default/web: metadata.annotations[kube-hop.io/ipvs-scheduler-flags]: `
	const onlyUDP = `"ops": is for Services that have only UDP ports and no session affinity; ignored`
	for _, c := range []serviceCase{
		{name: "none", change: annotated(""), want: are(0)},
		{name: "sh", change: annotated("sh-port, sh-fallback"), want: are(lb.HashPort)},
		{name: "mh", change: annotated("mh-port"), want: are(lb.HashPort)},
		{name: "ops", change: annotated("ops", udp), want: are(lb.OnePacket, isUDP)},
		{name: "ops for TCP", change: annotated("ops,sh-port"), want: are(lb.HashPort), problems: []string{path + onlyUDP}},
		{name: "ops with affinity", change: annotated("ops", udp, sticky), want: are(0, isUDP, isSticky), problems: []string{path + onlyUDP}},
		{
			name: "unknown", change: annotated("flag-1"), want: are(0),
			problems: []string{path + `"flag-1": must be sh-port, sh-fallback, mh-port, mh-fallback or ops; ignored`},
		},
	} {
		t.Run(c.name, c.run)
	}
}
