package informers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/lb"
)

func webSlice() *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.5"}}},
	}
}

func webSliceModel() lb.EndpointSlice {
	return lb.EndpointSlice{
		Name: lb.Name{Namespace: "default", Name: "web-1"}, Service: lb.Name{Namespace: "default", Name: "web"},
		Family:    lb.IPv4,
		Ports:     []lb.EndpointPort{{Name: "http", Proto: lb.TCP, Port: 8080}},
		Endpoints: []lb.Endpoint{{Addr: addrs("10.244.1.5")[0], Ready: true, Serving: true}},
	}
}

func TestFromEndpointSliceIgnored(t *testing.T) {
	const label = `metadata.labels[kubernetes.io/service-name]`
	for name, c := range map[string]struct {
		change  func(*discoveryv1.EndpointSlice)
		problem string
	}{
		"headless": {func(s *discoveryv1.EndpointSlice) { s.Labels[LabelHeadless] = "" }, ""},
		"no service label": {
			func(s *discoveryv1.EndpointSlice) { s.Labels = nil },
			`EndpointSlice default/web-1: ` + label + `: must be set; ignored`,
		},
		"empty service label": {
			func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "" },
			`EndpointSlice default/web-1: ` + label + `: must be set; ignored`,
		},
		"no name": {
			func(s *discoveryv1.EndpointSlice) { s.Name = "" },
			`EndpointSlice default/: metadata.name: must be set; ignored`,
		},
		"no namespace": {
			func(s *discoveryv1.EndpointSlice) { s.Namespace = "" },
			`EndpointSlice web-1: metadata.namespace: must be set; ignored`,
		},
		"FQDN": {
			func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN },
			`EndpointSlice default/web-1: addressType: "FQDN": must be IPv4 or IPv6; ignored`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := webSlice()
			c.change(s)
			_, problems, ok := FromEndpointSlice(s)
			if ok {
				t.Error("used")
			}
			var want []string
			if c.problem != "" {
				want = []string{c.problem}
			}
			if d := cmp.Diff(want, texts(problems)); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestFromEndpointSlice(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*discoveryv1.EndpointSlice)
		want     func(*lb.EndpointSlice)
		problems []string
	}{
		{name: "plain"},
		{
			name: "ports",
			change: func(s *discoveryv1.EndpointSlice) {
				s.Ports = []discoveryv1.EndpointPort{
					{Port: new(int32(1))},
					{Name: new("a")},
					{Name: new("b"), Port: new(int32(0))},
					{Name: new("c"), Port: new(int32(65536))},
					{Name: new("d"), Port: new(int32(4)), Protocol: new(corev1.Protocol("ICMP"))},
					{Name: new(""), Port: new(int32(5))},
					{Name: new("e"), Port: new(int32(6)), Protocol: new(corev1.ProtocolSCTP)},
				}
			},
			want: func(s *lb.EndpointSlice) {
				s.Ports = []lb.EndpointPort{{Proto: lb.TCP, Port: 5}, {Name: "e", Proto: lb.SCTP, Port: 6}}
			},
			problems: []string{
				`EndpointSlice default/web-1: ports[0].name: must be set, "" for the only port; ignored`,
				`EndpointSlice default/web-1: ports[1].port: must be 1 to 65535; ignored`,
				`EndpointSlice default/web-1: ports[2].port: must be 1 to 65535; ignored`,
				`EndpointSlice default/web-1: ports[3].port: "65536": must be 1 to 65535; ignored`,
				`EndpointSlice default/web-1: ports[4].protocol: "ICMP": must be TCP, UDP or SCTP; ignored`,
			},
		},
		{
			name: "addresses",
			change: func(s *discoveryv1.EndpointSlice) {
				s.Endpoints = []discoveryv1.Endpoint{
					{},
					{Addresses: []string{"10.244.001.006", "10.244.1.99"}},
					{Addresses: []string{"fd00::1"}},
					{Addresses: []string{"web.example.org"}},
					{Addresses: []string{"::ffff:10.244.1.7"}},
					{Addresses: []string{"127.0.0.1"}},
				}
			},
			want: func(s *lb.EndpointSlice) {
				s.Endpoints = []lb.Endpoint{
					{Addr: addrs("10.244.1.6")[0], Ready: true, Serving: true},
					{Addr: addrs("10.244.1.7")[0], Ready: true, Serving: true},
				}
			},
			problems: []string{
				`EndpointSlice default/web-1: endpoints[0].addresses: must hold an address; ignored`,
				`EndpointSlice default/web-1: endpoints[2].addresses[0]: "fd00::1": must be an IPv4 address; ignored`,
				`EndpointSlice default/web-1: endpoints[3].addresses[0]: "web.example.org": must be an IP address; ignored`,
				`EndpointSlice default/web-1: endpoints[5].addresses[0]: "127.0.0.1": must not be an unspecified, loopback or multicast address; ignored`,
			},
		},
		{
			name: "conditions, place and hints",
			change: func(s *discoveryv1.EndpointSlice) {
				s.AddressType = discoveryv1.AddressTypeIPv6
				s.Endpoints = []discoveryv1.Endpoint{{
					Addresses: []string{"FD00:0::1"},
					Conditions: discoveryv1.EndpointConditions{
						Ready: new(false), Serving: new(false), Terminating: new(true),
					},
					NodeName: new("node-1"), Zone: new("a"),
					Hints: &discoveryv1.EndpointHints{
						ForZones: []discoveryv1.ForZone{{Name: "a"}, {Name: "b"}},
						ForNodes: []discoveryv1.ForNode{{Name: "node-1"}},
					},
				}}
			},
			want: func(s *lb.EndpointSlice) {
				s.Family = lb.IPv6
				s.Endpoints = []lb.Endpoint{{
					Addr: addrs("fd00::1")[0], NodeName: "node-1", Zone: "a", Terminating: true,
					HintZones: []string{"a", "b"}, HintNodes: []string{"node-1"},
				}}
			},
		},
		{
			name: "IPv4-mapped address in an IPv6 slice",
			change: func(s *discoveryv1.EndpointSlice) {
				s.AddressType, s.Endpoints[0].Addresses[0] = "IPv6", "::ffff:10.0.0.1"
			},
			want:     func(s *lb.EndpointSlice) { s.Family, s.Endpoints = lb.IPv6, nil },
			problems: []string{`EndpointSlice default/web-1: endpoints[0].addresses[0]: "::ffff:10.0.0.1": must be an IPv6 address; ignored`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			obj, want := webSlice(), webSliceModel()
			if c.change != nil {
				c.change(obj)
				c.want(&want)
			}
			got, problems, ok := FromEndpointSlice(obj)
			if !ok {
				t.Fatal("ignored")
			}
			if d := cmp.Diff(want, got, loosely); d != "" {
				t.Errorf("slice (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.problems, texts(problems)); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestFromNode(t *testing.T) {
	obj := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "Node-1", Labels: map[string]string{corev1.LabelTopologyZone: "a"}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.1.7/24", "bad", "fd00:1::/64"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeExternalIP, Address: "203.0.113.1"},
			{Type: corev1.NodeHostName, Address: "10.0.0.99"},
			{Type: corev1.NodeInternalIP, Address: "bad"},
			{Type: corev1.NodeInternalIP, Address: "010.0.0.1"},
			{Type: corev1.NodeInternalIP, Address: "fd00::1"},
		}},
	}
	want := lb.Node{
		Name: "node-1", Zone: "a",
		Addresses: addrs("10.0.0.1", "fd00::1", "203.0.113.1"), PodCIDRs: ranges("10.244.1.0/24", "fd00:1::/64"),
	}
	if d := cmp.Diff(want, FromNode(obj), loosely); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for name, change := range map[string]func(*corev1.Node){
		"deleted": func(n *corev1.Node) { n.DeletionTimestamp = new(metav1.Unix(1, 0)) },
		"tainted": func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "x"}, {Key: taintLeaving}} },
	} {
		t.Run(name, func(t *testing.T) {
			n := obj.DeepCopy()
			change(n)
			if !FromNode(n).Leaving {
				t.Error("not leaving")
			}
		})
	}
	t.Run("podCIDR alone", func(t *testing.T) {
		got := FromNode(&corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.9.0.0/24"}})
		if d := cmp.Diff(ranges("10.9.0.0/24"), got.PodCIDRs, loosely); d != "" {
			t.Error(d)
		}
	})
}

func TestFromServiceCIDR(t *testing.T) {
	got, problems := FromServiceCIDR(&networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.1/12", "10.96", "fd00:96::/112"}},
	})
	if d := cmp.Diff(ranges("10.96.0.0/12", "fd00:96::/112"), got, loosely); d != "" {
		t.Error(d)
	}
	want := []string{`ServiceCIDR kubernetes: spec.cidrs[1]: "10.96": must be a CIDR, such as 10.0.0.0/8; ignored`}
	if d := cmp.Diff(want, texts(problems)); d != "" {
		t.Error(d)
	}
}

func TestProblemValueIsShortened(t *testing.T) {
	var r report
	long := make([]byte, 1<<20)
	for i := range long {
		long[i] = 0xe2 // never a whole rune
	}
	r.add("f", string(long), "x")
	if got := len(r.problems[0].Value); got > maxValue+3 {
		t.Errorf("%d bytes kept", got)
	}
}
