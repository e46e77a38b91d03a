//go:build e2e && linux

package suite

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

// The kinds of frontend.
const (
	clusterIP    = "ClusterIP"
	externalIP   = "external IP"
	loadBalancer = "LoadBalancer IP"
	nodePort     = "NodePort"
)

// frontend is one address that a Service answers on.
type frontend struct {
	kind string
	addr netip.AddrPort
	// local is set for external frontends of a Service with policy Local.
	local bool
}

// String is short enough for the name of a subtest.
func (f frontend) String() string { return f.kind + " " + f.addr.String() }

// addr returns the Service's own address of a kind and family. The number has the same digits in both families.
func (m *manifest) addr(kind string, family int) netip.Addr {
	format := map[string]map[int]string{
		clusterIP:    {4: "10.96.0.%d", 6: "fd96::%d"},
		externalIP:   {4: "198.51.100.%d", 6: "fd98::e:%d"},
		loadBalancer: {4: "203.0.113.%d", 6: "fd98::f:%d"},
	}[kind][family]
	return netip.MustParseAddr(fmt.Sprintf(format, m.number))
}

// nodePort returns the Service's node port, of every protocol.
func (m *manifest) nodePort() int32 { return int32(30000 + m.number) }

// frontends returns where clients of the node find the Service: each kind in both families.
func (m *manifest) frontends(via *testbed.Host) []frontend {
	var out []frontend
	for _, family := range []int{4, 6} {
		for _, kind := range []string{clusterIP, externalIP, loadBalancer} {
			out = append(out, frontend{kind: kind, addr: netip.AddrPortFrom(m.addr(kind, family), 80)})
		}
		out = append(out, frontend{kind: nodePort, addr: netip.AddrPortFrom(via.Addr(m.addr(clusterIP, family)), uint16(m.nodePort()))})
	}
	for i := range out {
		out[i].local = out[i].kind != clusterIP && m.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	}
	return out
}

// vips are the frontends on the Service's own addresses, with another port.
func (m *manifest) vips(port uint16) []frontend {
	var out []frontend
	for _, family := range []int{4, 6} {
		for _, kind := range []string{clusterIP, externalIP, loadBalancer} {
			out = append(out, frontend{kind: kind, addr: netip.AddrPortFrom(m.addr(kind, family), port)})
		}
	}
	return out
}

// at returns the ClusterIP of a family with port 80.
func (m *manifest) at(family int) netip.AddrPort {
	return netip.AddrPortFrom(m.addr(clusterIP, family), 80)
}

// key returns the frontend's virtual server.
func (f frontend) key(p testbed.Proto) ipvs.Key { return keyOf(p, f.addr) }

func keyOf(p testbed.Proto, addr netip.AddrPort) ipvs.Key {
	number := map[testbed.Proto]ipvs.Proto{testbed.TCP: ipvs.TCP, testbed.UDP: ipvs.UDP, testbed.SCTP: ipvs.SCTP}[p]
	return ipvs.Key{Addr: addr.Addr(), Port: addr.Port(), Proto: number}
}

// client is who asks, and the node whose rules its requests meet.
type client struct {
	host, via *testbed.Host
}

// clients returns one of each kind: a pod, a pod of the other node, a node, and somebody outside.
func (c *cluster) clients() []client {
	return []client{{c.A1, c.N1}, {c.B1, c.N2}, {c.N1, c.N1}, {c.Out, c.N1}}
}

// peers returns what a pod may see as its client: the client's own address only if a pod asks at a ClusterIP, or
// anybody but the node itself where the policy is Local, else an address of the node, and that of the node's pod
// bridge if the pod is on the same node.
func (cl client) peers(f frontend, pod *testbed.Host) []netip.Addr {
	keeps := f.kind == clusterIP && cl.host.Node != nil || f.local && cl.host != cl.via
	if keeps && cl.host != pod {
		return []netip.Addr{cl.host.Addr(f.addr.Addr())}
	}
	out := []netip.Addr{cl.via.Addr(f.addr.Addr())}
	if pod.Node != cl.via {
		return out
	}
	if f.addr.Addr().Is4() {
		return append(out, cl.via.Gateway4)
	}
	return append(out, cl.via.Gateway6)
}
