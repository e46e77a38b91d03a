//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestOnTheirWay: packets whose way was chosen while their destination was a Service's address, and that go on when it is
// nobody's any more, do not reach what listens on the node. A loaded machine stops a packet between two steps for longer
// than a change takes; here a queue does.
func TestOnTheirWay(t *testing.T) {
	c := shared(t)
	n1 := c.nodes[0]
	m, stays := newService("on-their-way", 174, c.A1), newService("stays", 175, c.A1)
	c.apply(t, m)
	c.apply(t, stays) // with the last virtual server IPVS takes its hooks away, and the kernel then drops what is in queues
	s := serveOn(t, c.N1, testbed.UDP, hostPort)
	hold := n1.holdPort(t, testbed.UDP, hostPort)
	clients := []*testbed.Host{c.A2, c.N1, c.Out}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, f := range m.vips(hostPort) {
		for _, from := range clients {
			// Long enough for all to be sent; nobody answers.
			wg.Go(func() { _, _ = from.Ask(t.Context(), testbed.UDP, f.addr, testbed.Timeout(10*time.Second)) })
		}
	}
	eventually(t, startLimit, func() error {
		n, err := hold.Count()
		if want := len(clients) * len(m.vips(hostPort)); err == nil && n != want {
			err = fmt.Errorf("%d packets are on their way, want %d", n, want)
		}
		return err
	})
	c.drop(t, m.Name)
	eventually(t, startLimit, func() error { return n1.unguarded(t, m) })
	if err := hold.Release(); err != nil {
		t.Fatal(err)
	}
	c.onlyOfTheNode(t, s)
}

// holdPort keeps what comes to the node or leaves it for a port, behind routing and before the guards.
func (n *node) holdPort(t *testing.T, proto testbed.Proto, port uint16) *testbed.Hold {
	t.Helper()
	const queue = 22
	h, err := n.Hold(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"iptables", "ip6tables"} {
		for _, chain := range []string{"INPUT", "OUTPUT"} {
			rule := func(verb string) []string {
				return strings.Fields(fmt.Sprintf("%s -t mangle %s %s -p %s --dport %d -j NFQUEUE --queue-num %d", command, verb, chain, strings.ToLower(string(proto)), port, queue))
			}
			n.runWhile(t, rule("-I"), rule("-D"))
		}
	}
	return h
}

// unguarded reports an error as long as the node guards an address of a Service that is not in a range of ClusterIPs.
func (n *node) unguarded(t *testing.T, m *manifest) error {
	sets := n.run(t, "ipset", "save")
	for _, f := range m.vips(80) {
		set := map[bool]string{true: "KUBE-HOP-VIP", false: "KUBE-HOP-6-VIP"}[f.addr.Addr().Is4()]
		if f.kind != clusterIP && strings.Contains(sets, fmt.Sprintf("add %s %s\n", set, f.addr.Addr())) {
			return fmt.Errorf("%s is guarded", f)
		}
	}
	return nil
}

// flowPort is where a pod answers the flows of the tests below, whose Service port is hostPort.
const flowPort = 8098

// withFlowPort gives a Service the UDP port that is also one of the node, answered by a pod.
func (m *manifest) withFlowPort(pod *testbed.Host) *manifest {
	m.Spec.Ports = append(m.Spec.Ports, corev1.ServicePort{Name: "flow", Protocol: corev1.ProtocolUDP, Port: hostPort})
	for _, family := range []int{4, 6} {
		m.Slices = append(m.Slices, m.slice("flow", family, endpointPorts{endpointPort("flow", testbed.UDP, flowPort)}, pod))
	}
	return m
}

// TestFlowsOnTheirWay: the same for a port that was the Service's, also at addresses of which it alone was, and for datagrams
// of flows that connection tracking knows as well as for the first ones of others. The first datagram on an old flow is
// dropped by IPVS, which then forgets the flow, so that the second counts.
func TestFlowsOnTheirWay(t *testing.T) {
	c := shared(t)
	n1 := c.nodes[0]
	m, stays := newService("flows-on-their-way", 176, c.A1).withFlowPort(c.A1), newService("stays", 175, c.A1)
	wire := []netip.Addr{netip.MustParseAddr("192.168.50.210"), netip.MustParseAddr("fd50::210")}
	for _, a := range wire {
		m.Spec.ExternalIPs = append(m.Spec.ExternalIPs, a.String())
	}
	serveOn(t, c.A1, testbed.UDP, flowPort)
	c.apply(t, m)
	c.apply(t, stays) // with the last virtual server IPVS takes its hooks away, and the kernel then drops what is in queues
	s := serveOn(t, c.N1, testbed.UDP, hostPort)
	limit := testbed.Timeout(2 * time.Second)
	var clients []func() [3]error // each sends twice on a flow that is open, and once on a new one
	open := func(from *testbed.Host, addr netip.AddrPort) {
		flow, err := from.Dial(t.Context(), testbed.UDP, addr, limit)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, func() [3]error {
			_, err := from.Ask(t.Context(), testbed.UDP, addr, limit)
			return [3]error{flow.Ping(), flow.Ping(), err}
		})
	}
	for _, from := range []*testbed.Host{c.A2, c.N1} {
		for _, f := range m.vips(hostPort) {
			open(from, f.addr)
		}
		for _, a := range wire {
			open(from, netip.AddrPortFrom(a, hostPort))
		}
	}
	for _, f := range m.vips(hostPort) {
		open(c.Out, f.addr)
	}
	hold := n1.holdPort(t, testbed.UDP, hostPort)
	var wg sync.WaitGroup
	for _, sendAll := range clients {
		wg.Go(func() {
			for _, err := range sendAll() {
				if !errors.Is(err, testbed.ErrTimeout) {
					t.Errorf("a packet that is held was answered, or something else: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := hold.Count(); err != nil || n != 3*len(clients) {
		t.Fatalf("%d packets are on their way, %v; want %d", n, err, 3*len(clients))
	}
	c.drop(t, m.Name)
	eventually(t, startLimit, func() error { return n1.unguarded(t, m) })
	c.settle(t)
	if err := hold.Release(); err != nil {
		t.Fatal(err)
	}
	c.onlyOfTheNode(t, s)
}

// onlyOfTheNode asks the node's server at the node's own addresses, and fails if others have reached it before: what is
// sent now is received after what was on its way.
func (c *cluster) onlyOfTheNode(t *testing.T, s *testbed.Server) {
	t.Helper()
	for _, addr := range []netip.Addr{c.N1.Addr4, c.N1.Addr6} {
		a, err := c.N1.Ask(t.Context(), testbed.UDP, netip.AddrPortFrom(addr, hostPort))
		if err != nil || a.Pod != "n1" {
			t.Errorf("the node at its address %s: answered by %q, %v; want n1", addr, a.Pod, err)
		}
	}
	if s.Count() != 2 {
		t.Errorf("UDP port %d of the node was reached at the address of a Service that was deleted: by client %v, want two of the node itself", hostPort, s.Seen())
	}
}

// TestFlowsMeetTheGuard: a client that goes on sending when the Service loses the port, or is deleted, does not reach what
// listens on that port of the node. Connection tracking may know its flow for a moment longer than IPVS does.
func TestFlowsMeetTheGuard(t *testing.T) {
	c := shared(t)
	const number = 177
	name := "flows-and-guard"
	m, without, before := newService(name, number, c.A1).withFlowPort(c.A1), newService(name, number, c.A1), newService("before", 178, c.A1)
	c.apply(t, m)
	pod, node := serveOn(t, c.A1, testbed.UDP, flowPort), serveOn(t, c.N1, testbed.UDP, hostPort)
	senders := 0
	for _, f := range m.vips(hostPort) {
		for _, from := range []*testbed.Host{c.A2, c.N1, c.Out} {
			sender, err := from.SendOneWay(t.Context(), f.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = sender.Close() })
			senders++
		}
	}
	for _, end := range []struct {
		name string
		do   func()
	}{
		{"the port goes", func() { c.put(t, name, without.text()) }},
		{"the Service goes", func() { c.drop(t, name) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			c.apply(t, m)
			c.apply(t, before)
			pod.Reset()
			eventually(t, flowLimit, func() error {
				if n, want := pod.Count(), 10*senders; n < want {
					return fmt.Errorf("%d datagrams came, want %d", n, want)
				}
				return nil
			})
			node.Reset()
			// The flows of a change are looked for at once, and those of the next change a second later.
			c.drop(t, before.Name)
			eventually(t, startLimit, func() error { return c.nodes[0].want(testbed.UDP, before.at(6), false) })
			end.do()
			c.quiet(t, pod)
			if node.Count() > 0 {
				t.Errorf("UDP port %d of the node was reached at a Service's address, by client: %v", hostPort, node.Seen())
			}
		})
	}
}
