//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// addDevice gives a host a dummy device with addresses, and returns the function that takes it away.
func addDevice(t *testing.T, h *testbed.Host, name string, addrs ...netip.Addr) (remove func()) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Dummy{LinkAttrs: attrs}
	err := h.Do(func() error {
		if err := errors.Join(netlink.LinkAdd(link), netlink.LinkSetUp(link)); err != nil {
			return err
		}
		for _, a := range addrs {
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice())}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	gone := false
	remove = func() {
		if gone {
			return
		}
		gone = true
		if err := h.Do(func() error { return netlink.LinkDel(link) }); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(remove)
	return remove
}

// answeredBy waits until a request is answered by a host.
func answeredBy(t *testing.T, from *testbed.Host, proto testbed.Proto, at netip.AddrPort, want string) {
	t.Helper()
	begin := time.Now()
	eventually(t, 20*time.Second, func() error {
		a, err := from.Ask(t.Context(), proto, at, testbed.Timeout(time.Second))
		if err == nil && a.Pod != want {
			err = fmt.Errorf("answered by %s", a.Pod)
		}
		if err != nil {
			err = fmt.Errorf("%s %s to %s: %w, want an answer of %s", proto, from, at, err, want)
		}
		return err
	})
	t.Logf("%s to %s: %s answers after %s", from, at, want, time.Since(begin).Round(time.Millisecond))
}

// TestLocalListener is P55: a listener on the node that has the Service's ClusterIP serves it, as NodeLocal DNSCache does,
// and the Service does when the listener's device is gone.
func TestLocalListener(t *testing.T) {
	c := shared(t)
	m := newService("listener", 53, c.A2, c.B2).annotate("kube-hop.io/local-listener", "true")
	c.apply(t, m.withPods(c.A2))
	c4, linkLocal := m.at(4), netip.MustParseAddr("169.254.20.10")
	answeredBy(t, c.A1, testbed.UDP, c4, "a2")
	remove := addDevice(t, c.N1, "nodelocaldns", linkLocal, c4.Addr())
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		serveOn(t, c.N1, proto, c4.Port())
		for _, from := range []*testbed.Host{c.A1, c.N1} {
			answeredBy(t, from, proto, c4, "n1")
			answeredBy(t, from, proto, netip.AddrPortFrom(linkLocal, c4.Port()), "n1")
		}
	}
	if err := c.nodes[0].want(testbed.UDP, c4, false); err != nil {
		t.Error(err)
	}
	remove()
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		for _, from := range []*testbed.Host{c.A1, c.N1} {
			answeredBy(t, from, proto, c4, "a2")
		}
	}
}

// TestNodePortsKeepOffServiceAddresses is P37: a selection of node port addresses that covers the Service ranges makes no
// Service address a node address.
func TestNodePortsKeepOffServiceAddresses(t *testing.T) {
	c := fresh(t, options{nodes: oneNode, args: []string{"--nodeport-addresses", "0.0.0.0/1,192.168.50.11/32,fd50::11/128"}})
	m := newService("overlap", 54, c.A1).local()
	c.apply(t, m)
	n1 := c.nodes[0]
	before := len(n1.dump(t).Virtual)
	addDevice(t, c.N1, "extra", netip.MustParseAddr("192.168.77.1"))
	c.settle(t)
	port := uint16(m.nodePort())
	for _, kind := range []string{clusterIP, externalIP, loadBalancer} {
		if err := n1.want(testbed.TCP, netip.AddrPortFrom(m.addr(kind, 4), port), false); err != nil {
			t.Error(err)
		}
		if _, err := c.A2.Ask(t.Context(), testbed.TCP, netip.AddrPortFrom(m.addr(kind, 4), port)); !errors.Is(err, testbed.ErrRefused) {
			t.Errorf("node port at a %s: %v, want it refused", kind, err)
		}
	}
	if after := len(n1.dump(t).Virtual); after != before {
		t.Errorf("%d virtual servers, %d before another address came", after, before)
	}
	wantProbe(t, c.Out, m.healthAt(c.N1.Addr4), 200)
	wantProbe(t, c.A1, m.healthAt(netip.MustParseAddr("192.168.77.1")), 0)
	wantProbe(t, c.A1, m.healthAt(m.addr(loadBalancer, 4)), 200)
	wantProbe(t, c.A1, m.healthAt(m.addr(loadBalancer, 6)), 200)
}

// TestFromTheNode is P36: the node reaches ClusterIPs with local and remote endpoints, and shows one of its addresses,
// however pods are told from others.
func TestFromTheNode(t *testing.T) {
	c := fresh(t, options{})
	m := newService("from-node", 55, c.A1, c.B1)
	c.apply(t, m)
	n1 := c.nodes[0]
	for _, mode := range [][]string{
		{"--detect-local-mode", "ClusterCIDR"},
		{"--detect-local-mode", "NodeCIDR"},
		{"--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "cbr0"},
		{"--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "cb"},
		{"--cluster-cidr", ""},
	} {
		t.Run(mode[len(mode)-1], func(t *testing.T) {
			n1.stop(t, 15)
			n1.args = mode
			c.restart(t, n1)
			c.settle(t)
			for _, family := range []int{4, 6} {
				tally := c.N1.AskMany(t.Context(), 6, testbed.TCP, m.at(family))
				if len(tally.Errors) > 0 || tally.Pods["a1"] == 0 || tally.Pods["b1"] == 0 {
					t.Errorf("IPv%d: %v, errors %v; want answers of a1 and b1", family, tally.Pods, tally.Errors)
				}
				for peer := range tally.Peers {
					if peer != c.N1.Addr(peer) && peer != c.N1.Gateway4 && peer != c.N1.Gateway6 {
						t.Errorf("IPv%d: pods saw %s, want an address of the node", family, peer)
					}
				}
			}
		})
	}
}

// TestSharedLoadBalancerIP is P13: Services that share a LoadBalancer IP do not share anything else.
func TestSharedLoadBalancerIP(t *testing.T) {
	c := shared(t)
	on := func(name string, number int, proto testbed.Proto, ports ...int32) *manifest {
		m := newService(name, number, c.A2)
		for i := range m.Spec.Ports {
			if m.Spec.Ports[i].Name == portName(proto) {
				m.Spec.Ports[0] = m.Spec.Ports[i]
			}
		}
		m.Spec.Ports = m.Spec.Ports[:1]
		for _, p := range ports[1:] {
			more := m.Spec.Ports[0]
			more.Name, more.Port, more.NodePort = more.Name+"2", p, 0
			m.Spec.Ports = append(m.Spec.Ports, more)
			for _, s := range m.Slices {
				s.Ports = append(s.Ports, endpointPort(more.Name, proto, podPort))
			}
		}
		m.Spec.Ports[0].Port = ports[0]
		for i := range m.Status.LoadBalancer.Ingress {
			m.Status.LoadBalancer.Ingress[i].IP = (&manifest{number: 56}).addr(loadBalancer, 4+2*i).String()
		}
		return m
	}
	s1, s2, s3 := on("shared-1", 57, testbed.TCP, 7001).local(), on("shared-2", 58, testbed.TCP, 8001, 8002), on("shared-3", 59, testbed.UDP, 7001)
	s1.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", "2001:db8::/64"} // nobody here
	c.apply(t, s1, s2, s3)
	probe := func(restricted, second bool) {
		t.Helper()
		var all []expectation
		for _, family := range []int{4, 6} {
			v := (&manifest{number: 56}).addr(loadBalancer, family)
			at := func(port uint16) frontend { return frontend{kind: loadBalancer, addr: netip.AddrPortFrom(v, port)} }
			out := client{c.Out, c.N1}
			all = append(all, expectation{out, at(8001), testbed.TCP, true}, expectation{out, at(7001), testbed.UDP, true})
			if restricted {
				all = append(all, expectation{out, at(7001), testbed.TCP, false})
			}
			if second {
				all = append(all, expectation{out, at(8002), testbed.TCP, true})
			}
		}
		c.checkAll(t, all)
	}
	probe(true, true)
	held, err := c.Out.Dial(t.Context(), testbed.TCP, netip.AddrPortFrom((&manifest{number: 56}).addr(loadBalancer, 4), 8001))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	c.drop(t, s1.Name)
	c.settle(t)
	probe(false, true)
	s2.Spec.Ports = s2.Spec.Ports[:1]
	c.apply(t, s2)
	probe(false, false)
	if err := held.Ping(); err != nil {
		t.Error("connection through the Service that stays: ", err)
	}
}

// TestNeighbourAddress is P38 and P08: at an external or LoadBalancer IP that is another node's address only the Service's
// port is captured, and what comes from that address is answered there.
func TestNeighbourAddress(t *testing.T) {
	c := shared(t)
	m := newService("neighbour", 77, c.A2, c.B2).local()
	m.Spec.ExternalTrafficPolicy = "Cluster"
	m.Spec.HealthCheckNodePort = 0
	m.Spec.ExternalIPs = []string{c.N2.Addr4.String(), c.N2.Addr6.String()}
	for i := range m.Status.LoadBalancer.Ingress {
		m.Status.LoadBalancer.Ingress[i].IP = m.Spec.ExternalIPs[i]
	}
	serveOn(t, c.N2, testbed.TCP, hostPort)
	serveOn(t, c.N2, testbed.UDP, hostPort)
	c.apply(t, m)
	for _, addr := range []netip.Addr{c.N2.Addr4, c.N2.Addr6} {
		t.Run(addr.String(), func(t *testing.T) {
			for _, from := range []*testbed.Host{c.N1, c.A1, c.Out, c.B1} {
				answeredBy(t, from, testbed.TCP, netip.AddrPortFrom(addr, hostPort), "n2")
				answeredBy(t, from, testbed.UDP, netip.AddrPortFrom(addr, hostPort), "n2")
				for _, proto := range protos {
					if a, err := from.Ask(t.Context(), proto, netip.AddrPortFrom(addr, 80)); err != nil || a.Pod != "a2" && a.Pod != "b2" {
						t.Errorf("%s %s to the Service at %s: %q, %v", proto, from, addr, a.Pod, err)
					}
				}
			}
			// A load balancer that has the address asks at node ports, and nodes answer it and not themselves.
			at := netip.AddrPortFrom(c.N1.Addr(addr), uint16(m.nodePort()))
			if _, err := c.N2.Ask(t.Context(), testbed.TCP, at, testbed.From(netip.AddrPortFrom(addr, 0))); err != nil {
				t.Errorf("from %s to a node port: %v", addr, err)
			}
		})
	}
}

// TestAddressOfLoadBalancer: a load balancer that is in no network of the node, and asks the node from the address that the
// node serves, is answered if --port-only-cidrs names the address; pods and the node still reach the Service there (P08).
func TestAddressOfLoadBalancer(t *testing.T) {
	c := fresh(t, options{nodes: oneNode, args: []string{"--port-only-cidrs=203.0.113.0/24,fd98::f:0/112"}})
	m := newService("balancer", 8, c.A2)
	c.apply(t, m)
	for _, family := range []int{4, 6} {
		vip, via := m.addr(loadBalancer, family), c.Out
		addDevice(t, c.Out, fmt.Sprintf("balancer%d", family), vip)
		if err := c.N1.RouteVia(netip.PrefixFrom(vip, vip.BitLen()), via); err != nil {
			t.Fatal(err)
		}
		at := netip.AddrPortFrom(vip, 80)
		for _, from := range []*testbed.Host{c.A1, c.N1} {
			answeredBy(t, from, testbed.TCP, at, "a2")
		}
		node := netip.AddrPortFrom(c.N1.Addr(vip), uint16(m.nodePort()))
		a, err := c.Out.Ask(t.Context(), testbed.TCP, node, testbed.From(netip.AddrPortFrom(vip, 0)))
		if err != nil || a.Pod != "a2" {
			t.Errorf("from %s to %s: %v, %v, want an answer of a2", vip, node, a, err)
		}
	}
}
