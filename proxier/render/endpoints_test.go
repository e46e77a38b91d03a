package render

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/lb"
)

// ep makes an endpoint at 10.0.0.N:80 from a short description of its node and conditions.
func ep(n byte, node string, mods ...func(*Endpoint)) Endpoint {
	e := Endpoint{Port: 80, Endpoint: &lb.Endpoint{
		Addr: netip.AddrFrom4([4]byte{10, 0, 0, n}), NodeName: node, Ready: true, Serving: true,
	}}
	for _, m := range mods {
		m(&e)
	}
	return e
}

func unready(e *Endpoint)                       { e.Ready, e.Serving = false, false }
func leaving(e *Endpoint)                       { e.Ready, e.Terminating = false, true }
func dying(e *Endpoint)                         { e.Ready, e.Serving, e.Terminating = false, false, true }
func hintZones(zones ...string) func(*Endpoint) { return func(e *Endpoint) { e.HintZones = zones } }
func hintNodes(nodes ...string) func(*Endpoint) { return func(e *Endpoint) { e.HintNodes = nodes } }

// TestSelect follows section 3 of the service semantics (kube-proxy's CategorizeEndpoints).
func TestSelect(t *testing.T) {
	node := lb.Node{Name: "n1", Zone: "a"}
	for _, tc := range []struct {
		name           string
		node           lb.Node
		eps            []Endpoint
		cluster, local []byte
		any            bool
	}{
		{name: "none", node: node},
		{name: "ready ones", node: node, eps: []Endpoint{ep(1, "n1"), ep(2, "n2")}, cluster: []byte{1, 2}, local: []byte{1}, any: true},
		{name: "unready is never used", node: node, eps: []Endpoint{ep(1, "n1", unready), ep(2, "n2", dying)}},
		{name: "leaving is not used beside a ready one", node: node, eps: []Endpoint{ep(1, "n1"), ep(2, "n2", leaving)}, cluster: []byte{1}, local: []byte{1}, any: true},
		{name: "leaving is the last resort", node: node, eps: []Endpoint{ep(1, "n1", leaving), ep(2, "n2", leaving), ep(3, "n2", unready)}, cluster: []byte{1, 2}, local: []byte{1}, any: true},
		{name: "local may leave while another node is ready", node: node, eps: []Endpoint{ep(1, "n1", leaving), ep(2, "n2")}, cluster: []byte{2}, local: []byte{1}, any: true},
		{name: "no node name is remote", node: node, eps: []Endpoint{ep(1, "")}, cluster: []byte{1}, any: true},
		{name: "unknown own name has no local ones", eps: []Endpoint{ep(1, "")}, cluster: []byte{1}, any: true},
		{name: "zone hints", node: node, eps: []Endpoint{ep(1, "n1", hintZones("a")), ep(2, "n2", hintZones("b"))}, cluster: []byte{1}, local: []byte{1}, any: true},
		{name: "several zones an endpoint", node: node, eps: []Endpoint{ep(1, "n1", hintZones("b", "a")), ep(2, "n2", hintZones("b"))}, cluster: []byte{1}, local: []byte{1}, any: true},
		{name: "one without a zone hint disables them", node: node, eps: []Endpoint{ep(1, "n1", hintZones("a")), ep(2, "n2")}, cluster: []byte{1, 2}, local: []byte{1}, any: true},
		{name: "hints of unready ones do not count", node: node, eps: []Endpoint{ep(1, "n2", hintZones("a")), ep(2, "n2", hintZones("b")), ep(3, "n2", unready)}, cluster: []byte{1}, any: true},
		{name: "no hint for this zone", node: node, eps: []Endpoint{ep(1, "n1", hintZones("b")), ep(2, "n2", hintZones("c"))}, cluster: []byte{1, 2}, local: []byte{1}, any: true},
		{name: "zone of this node unknown", node: lb.Node{Name: "n1"}, eps: []Endpoint{ep(1, "n1", hintZones("a")), ep(2, "n2", hintZones("b"))}, cluster: []byte{1, 2}, local: []byte{1}, any: true},
		{name: "node hints win over zone hints", node: node, eps: []Endpoint{ep(1, "n2", hintZones("a"), hintNodes("n2")), ep(2, "n2", hintZones("b"), hintNodes("n1"))}, cluster: []byte{2}, any: true},
		{name: "node hints for others fall to zones", node: node, eps: []Endpoint{ep(1, "n2", hintZones("a"), hintNodes("n2")), ep(2, "n3", hintZones("b"), hintNodes("n3"))}, cluster: []byte{1}, any: true},
		{name: "hints do not apply to leaving ones", node: node, eps: []Endpoint{ep(1, "n2", leaving, hintZones("a")), ep(2, "n2", leaving, hintZones("b"))}, cluster: []byte{1, 2}, any: true},
		{name: "hints do not narrow the local view", node: node, eps: []Endpoint{ep(1, "n1", hintZones("b")), ep(2, "n2", hintZones("a"))}, cluster: []byte{2}, local: []byte{1}, any: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			type views struct {
				Cluster, Local []netip.AddrPort
				Any            bool
			}
			v := Select(tc.eps, tc.node)
			got := views{addrsOf(v.Cluster), addrsOf(v.Local), v.Any}
			want := views{Cluster: addrs(tc.cluster), Local: addrs(tc.local), Any: tc.any}
			if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Errorf("Select (-want +got):\n%s", d)
			}
		})
	}
}

func addrs(ns []byte) []netip.AddrPort {
	var out []netip.AddrPort
	for _, n := range ns {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 80))
	}
	return out
}

func addrsOf(eps []Endpoint) []netip.AddrPort {
	var out []netip.AddrPort
	for _, e := range eps {
		out = append(out, netip.AddrPortFrom(e.Addr, e.Port))
	}
	return out
}

func TestEndpointsOfMatchesPortsByNameAndProtocol(t *testing.T) {
	slice := func(name string, port uint16, proto lb.Proto, n byte, mods ...func(*Endpoint)) lb.EndpointSlice {
		return lb.EndpointSlice{
			Family: lb.IPv4, Ports: []lb.EndpointPort{{Name: name, Proto: proto, Port: port}},
			Endpoints: []lb.Endpoint{*ep(n, "n1", mods...).Endpoint},
		}
	}
	slicesOf := []lb.EndpointSlice{
		slice("http", 8080, lb.TCP, 2), slice("http", 9090, lb.TCP, 1), slice("http", 8080, lb.UDP, 3), slice("", 8080, lb.TCP, 4),
		slice("http", 8080, lb.TCP, 2, leaving), // a duplicate: the one that is not terminating wins
		{Family: lb.IPv6, Ports: []lb.EndpointPort{{Name: "http", Proto: lb.TCP, Port: 8080}}, Endpoints: []lb.Endpoint{{Addr: netip.MustParseAddr("fd00::1"), Ready: true}}},
	}
	var got []string
	for _, e := range endpointsOf(slicesOf, lb.IPv4, lb.ServicePort{Name: "http", Proto: lb.TCP, Port: 80}) {
		if e.Terminating {
			t.Errorf("the terminating duplicate of %s won", e.Addr)
		}
		got = append(got, netip.AddrPortFrom(e.Addr, e.Port).String())
	}
	if d := cmp.Diff([]string{"10.0.0.1:9090", "10.0.0.2:8080"}, got); d != "" {
		t.Errorf("endpoints (-want +got):\n%s", d)
	}
}
