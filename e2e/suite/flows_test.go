//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// flowLimit is how long stale flows may last: changes are collected for a second, and guests are slow.
const flowLimit = 20 * time.Second

// udpClients are those that the tests of UDP flows send from, each at the frontends that it is for.
func (c *cluster) udpClients(m *manifest) map[frontend]*testbed.Host {
	out := map[frontend]*testbed.Host{}
	for _, f := range m.frontends(c.N1) {
		out[f] = c.Out
		if f.kind == clusterIP {
			out[f] = c.A1
		}
	}
	return out
}

// TestUDPMoves: a client that goes on sending from one port gets its answers from another pod as soon as its own is
// removed, at every frontend, and nothing of the old pod is left (P26).
func TestUDPMoves(t *testing.T) {
	c := shared(t)
	m := newService("udp-moves", 160, c.A2, c.B2)
	for f, from := range c.udpClients(m) {
		t.Run(f.String(), func(t *testing.T) {
			c.apply(t, m.withPods(c.A2, c.B2))
			port := testbed.FromPort(freePort())
			first, err := from.Ask(t.Context(), testbed.UDP, f.addr, port)
			if err != nil {
				t.Fatal(err)
			}
			other := map[string]*testbed.Host{"a2": c.B2, "b2": c.A2}[first.Pod]
			c.apply(t, m.withPods(other))
			eventually(t, flowLimit, func() error {
				a, err := from.Ask(t.Context(), testbed.UDP, f.addr, port, testbed.Timeout(time.Second))
				if err == nil && a.Pod != other.Name {
					err = fmt.Errorf("%s answers, not %s", a.Pod, other)
				}
				return err
			})
			eventually(t, flowLimit, func() error { return c.nodes[0].noFlow(f.addr, c.Host(first.Pod).Addr(f.addr.Addr())) })
		})
	}
}

// noFlow reports an error if the node tracks a UDP flow from an address and port to a pod.
func (n *node) noFlow(dst netip.AddrPort, pod netip.Addr) error {
	return n.Do(func() error {
		family := netlink.InetFamily(unix.AF_INET)
		if pod.Is6() {
			family = unix.AF_INET6
		}
		list, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		for _, f := range list {
			if f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.DstPort == dst.Port() &&
				f.Forward.DstIP.Equal(dst.Addr().AsSlice()) && f.Reverse.SrcIP.Equal(pod.AsSlice()) {
				return fmt.Errorf("%s still tracks %s", n, f)
			}
		}
		return err
	})
}

// oneWay starts a sender at each frontend, and the server in a pod that they reach.
func (c *cluster) oneWay(t *testing.T, m *manifest, pod *testbed.Host, port uint16) *testbed.Server {
	t.Helper()
	server, err := pod.Serve(t.Context(), testbed.UDP, port)
	if err != nil {
		t.Fatal(err)
	}
	for f, from := range c.udpClients(m) {
		sender, err := from.SendOneWay(t.Context(), f.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sender.Close() })
	}
	return server
}

// quiet waits until no datagram comes to the server between two settlings, each of which takes longer than many
// datagrams.
func (c *cluster) quiet(t *testing.T, server *testbed.Server) {
	t.Helper()
	eventually(t, flowLimit, func() error {
		server.Reset()
		c.settle(t)
		if n := server.Count(); n > 0 {
			return fmt.Errorf("%d datagrams still came from %v", n, server.Seen())
		}
		return nil
	})
}

// busy waits until datagrams come from both inside and outside. If the pod's last answers, sent when the flows were gone,
// stayed tracked as flows of their own, that would take 30 s.
func (c *cluster) busy(t *testing.T, server *testbed.Server) {
	t.Helper()
	server.Reset()
	err := await(flowLimit, func() error {
		if n := len(server.Seen()); n < 4 { // a pod and a masqueraded outside client, in each family
			return fmt.Errorf("datagrams came from %v only", server.Seen())
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\nwhat the kernel knows:\n%s%s", err, c.nodes[0].run(t, "ipvsadm", "-Lnc"), c.nodes[0].run(t, "sh", "-c", "conntrack -L -p udp; conntrack -L -f ipv6 -p udp; ip -6 neigh"))
	}
}

// TestUDPOneWay: senders that nobody answers stop reaching a pod when the last endpoint, a frontend or the Service
// goes, and reach it again afterwards without beginning anew (P27).
func TestUDPOneWay(t *testing.T) {
	c := shared(t)
	const port = 8099
	m := newService("udp-one-way", 161)
	for _, family := range []int{4, 6} {
		m.Slices = append(m.Slices, m.slice("one-way", family, endpointPorts{endpointPort("u", testbed.UDP, port)}, c.A2))
	}
	none := newService("udp-one-way", 161)
	c.apply(t, m)
	server := c.oneWay(t, m, c.A2, port)
	c.busy(t, server)

	c.apply(t, none)
	c.quiet(t, server)
	c.apply(t, m)
	c.busy(t, server)

	c.drop(t, m.Name)
	c.settle(t)
	c.quiet(t, server)
	c.apply(t, m)
	c.busy(t, server)
}

// TestUDPOlderThanFrontend: senders that began before their frontend existed are served once it does; also at an
// address and a node port that a Service gets later (P28).
func TestUDPOlderThanFrontend(t *testing.T) {
	c := shared(t)
	m := newService("udp-older", 162, c.A2, c.B2)
	before := newService("udp-older", 162, c.A2, c.B2)
	before.Spec.Type, before.Spec.ExternalIPs, before.Status.LoadBalancer.Ingress = "ClusterIP", nil, nil
	for i := range before.Spec.Ports {
		before.Spec.Ports[i].NodePort = 0
	}
	ports := map[frontend]testbed.Option{}
	for f := range c.udpClients(m) {
		ports[f] = testbed.FromPort(freePort())
	}
	ask := func(f frontend) error {
		_, err := c.udpClients(m)[f].Ask(t.Context(), testbed.UDP, f.addr, ports[f], testbed.Timeout(time.Second))
		return err
	}
	for f := range ports {
		if err := ask(f); err == nil {
			t.Fatalf("%s answers before it exists", f)
		}
	}
	c.apply(t, before)
	for f := range ports {
		if f.kind == clusterIP {
			eventually(t, flowLimit, func() error { return ask(f) })
		} else if err := ask(f); err == nil {
			t.Fatalf("%s answers before it exists", f)
		}
	}
	c.apply(t, m)
	for f := range ports {
		eventually(t, flowLimit, func() error { return ask(f) })
	}
}

// TestTCPOlderThanFrontend: a client whose first segment came before the frontend existed is served when it sends it
// again, and masqueraded: the pod on another node would answer it directly if it saw the client's own address (P28, P43).
func TestTCPOlderThanFrontend(t *testing.T) {
	c := shared(t)
	m := newService("tcp-older", 169, c.B2)
	type served struct {
		frontend
		testbed.Answer
		error
	}
	answers := make(chan served)
	asked := 0
	n1 := c.nodes[0]
	n1.runWhile(t, []string{"ip", "link", "add", "nowhere", "type", "dummy"}, []string{"ip", "link", "del", "nowhere"})
	n1.run(t, "ip", "link", "set", "nowhere", "up")
	for _, f := range m.frontends(c.N1) {
		if f.kind != externalIP && f.kind != loadBalancer {
			continue // refused at once: nothing is tracked
		}
		asked++
		// Where nobody says that there is no such address, which would end the attempt.
		gateway := "192.0.2.254"
		if f.addr.Addr().Is6() {
			gateway = "fe80::1"
		}
		n1.run(t, "ip", "route", "add", f.addr.Addr().String(), "via", gateway, "dev", "nowhere", "onlink")
		go func() {
			a, err := c.A1.Ask(t.Context(), testbed.TCP, f.addr, testbed.Timeout(startLimit))
			answers <- served{f, a, err}
		}()
		eventually(t, flowLimit, func() error { return n1.begun(f.addr) })
	}
	c.apply(t, m)
	for range asked {
		switch s := <-answers; {
		case s.error != nil:
			t.Error(s.error)
		case s.Peer.Addr() != c.N1.Addr(s.addr.Addr()):
			t.Errorf("%s: the pod saw %s instead of the node's address", s.frontend, s.Peer)
		}
	}
}

// begun returns nil if the node tracks a TCP flow to a destination, and nothing else has happened to it.
func (n *node) begun(dst netip.AddrPort) error {
	return n.Do(func() error {
		family := netlink.InetFamily(unix.AF_INET)
		if dst.Addr().Is6() {
			family = unix.AF_INET6
		}
		list, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		for _, f := range list {
			if f.Forward.Protocol == unix.IPPROTO_TCP && f.Forward.DstPort == dst.Port() &&
				f.Forward.DstIP.Equal(dst.Addr().AsSlice()) && f.Reverse.SrcIP.Equal(dst.Addr().AsSlice()) {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%s tracks nothing to %s", n, dst))
	})
}

// TestUDPForeignFlow: a flow to somebody else on a port that is also a node port is not touched when the node port's
// endpoints change (P29).
func TestUDPForeignFlow(t *testing.T) {
	c := shared(t)
	m := newService("udp-foreign", 163, c.A2)
	c.apply(t, m)
	if _, err := c.Out.Serve(t.Context(), testbed.UDP, uint16(m.nodePort())); err != nil {
		t.Fatal(err)
	}
	for _, family := range []int{4, 6} {
		to := netip.AddrPortFrom(c.Out.Addr(m.addr(clusterIP, family)), uint16(m.nodePort()))
		s, err := c.N1.Dial(t.Context(), testbed.UDP, to)
		if err != nil {
			t.Fatal(err)
		}
		// Two changes: the cleanup after the second one is not before that of the first.
		c.apply(t, m.withPods(c.B2))
		before := c.nodes[0].cleanups(t, family)
		c.apply(t, m.withPods(c.A2))
		eventually(t, flowLimit, func() error {
			if c.nodes[0].cleanups(t, family) == before {
				return errors.New("there was no cleanup of stale flows")
			}
			return nil
		})
		if err := c.nodes[0].noFlow(to, c.Out.Addr(to.Addr())); err == nil {
			t.Errorf("the flow to %s is not tracked any more", to)
		}
		if err := s.Ping(); err != nil {
			t.Error(err)
		}
	}
}

// cleanups returns how often the daemon has looked for stale flows of a family.
func (n *node) cleanups(t *testing.T, family int) float64 {
	t.Helper()
	return n.metric(t, fmt.Sprintf(`kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv%d"}`, family))
}
