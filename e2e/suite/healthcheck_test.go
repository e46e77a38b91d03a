//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// local makes the Service one with externalTrafficPolicy Local and a health check node port.
func (m *manifest) local() *manifest {
	m.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	m.Spec.HealthCheckNodePort = int32(31000 + m.number)
	return m
}

// healthAt returns the health check's address at one of the Service's or a node's addresses.
func (m *manifest) healthAt(a netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(a, uint16(m.Spec.HealthCheckNodePort))
}

// probe asks a health check as load balancers do.
func probe(h *testbed.Host, at netip.AddrPort) (int, error) {
	client := h.HTTP()
	client.Timeout = 10 * time.Second
	resp, err := client.Get("http://" + at.String() + "/")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// wantProbe waits until a health check answers with a code; 0 stands for a connection that is refused or dropped.
func wantProbe(t *testing.T, h *testbed.Host, at netip.AddrPort, want int) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		code, err := probe(h, at)
		if code != want || err != nil && want != 0 {
			return fmt.Errorf("%s asks %s: %d, %v; want %d", h, at, code, err, want)
		}
		return nil
	})
}

// TestHealthCheckNodePort: a node says at each of its addresses, and at the LoadBalancer IPs (P10), whether it has
// endpoints of a Service with policy Local (P01).
func TestHealthCheckNodePort(t *testing.T) {
	c := shared(t)
	m := newService("health-check", 72, c.A2, c.B1).local()
	c.apply(t, m)
	at := func(n *testbed.Host) []netip.AddrPort {
		return []netip.AddrPort{m.healthAt(n.Addr4), m.healthAt(n.Addr6)}
	}
	vips := []netip.AddrPort{m.healthAt(m.addr(loadBalancer, 4)), m.healthAt(m.addr(loadBalancer, 6))}
	for _, h := range []*testbed.Host{c.Out, c.A1, c.N1} {
		for _, a := range append(at(c.N1), vips...) {
			wantProbe(t, h, a, http.StatusOK)
		}
	}
	c.apply(t, m.withPods(c.B1))
	for _, a := range append(at(c.N1), vips...) {
		wantProbe(t, c.Out, a, http.StatusServiceUnavailable)
	}
	for _, a := range at(c.N2) {
		wantProbe(t, c.Out, a, http.StatusOK)
	}
	c.drop(t, m.Name)
	c.settle(t)
	for _, a := range append(at(c.N1), vips...) {
		wantProbe(t, c.Out, a, 0)
	}
}

// TestHealthCheckPortTaken: a port that another process has is told in the log, costs nothing else, and is served when
// it is free.
func TestHealthCheckPortTaken(t *testing.T) {
	c := quick(t)
	n1 := c.nodes[0]
	m := newService("health-taken", 73, c.A1).local()
	taken := serveOn(t, c.N1, testbed.TCP, uint16(m.Spec.HealthCheckNodePort))
	log := n1.logSince(t)
	c.apply(t, m)
	awaitLog(t, log, "Health check node port not served", "default/health-taken", "address already in use")
	if err := c.everyoneIsServed(t, m); err != nil {
		t.Error(err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	wantProbe(t, c.Out, m.healthAt(c.N1.Addr4), http.StatusOK)
}

// TestPolicyDrop is P16: what the host's firewall does with traffic to the host does not concern Services, whose ports
// are reached with the policies of INPUT and FORWARD at DROP; and that opens nothing else.
func TestPolicyDrop(t *testing.T) {
	c := fresh(t, options{})
	m, local := newService("policy", 74, c.A2, c.B2), newService("policy-local", 75, c.A2, c.B2).local()
	c.apply(t, m, local)
	serveOn(t, c.N1, testbed.TCP, hostPort)
	n1 := c.nodes[0]
	for _, tool := range []string{"iptables", "ip6tables"} {
		n1.run(t, tool, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
		n1.run(t, tool, "-P", "INPUT", "DROP")
		n1.run(t, tool, "-P", "FORWARD", "DROP")
	}
	for _, chain := range []string{"INPUT", "FORWARD"} { // neighbour discovery is IPv6's ARP; on the pods' bridge it is forwarded
		n1.run(t, "ip6tables", "-A", chain, "-p", "icmpv6", "-j", "ACCEPT")
	}
	check := func(clients ...client) {
		t.Helper()
		var all []expectation
		for _, cl := range clients {
			for _, s := range []*manifest{m, local} {
				for _, f := range s.frontends(c.N1) {
					for _, p := range protos {
						all = append(all, expectation{cl, f, p, true})
					}
				}
			}
		}
		c.checkAll(t, all)
	}
	check(client{c.A1, c.N1}, client{c.Out, c.N1})
	for _, a := range []netip.Addr{c.N1.Addr4, c.N1.Addr6, local.addr(loadBalancer, 4)} {
		wantProbe(t, c.Out, local.healthAt(a), http.StatusOK)
	}
	for _, a := range []netip.Addr{c.N1.Addr4, c.N1.Addr6} {
		if _, err := c.Out.Ask(t.Context(), testbed.TCP, netip.AddrPortFrom(a, hostPort), testbed.Timeout(3*time.Second)); !errors.Is(err, testbed.ErrTimeout) {
			t.Errorf("%s:%d of the host from outside: %v, want it dropped as before", a, hostPort, err)
		}
	}
	// What comes back to the node's own connections is the host's traffic, as in kube-proxy's modes.
	for _, tool := range []string{"iptables", "ip6tables"} {
		n1.run(t, tool, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
	}
	check(client{c.N1, c.N1})
}

// TestNothingServes is P14: no endpoints at all and ports that a Service does not have are refused; an address of the
// Service range that no Service has is dropped, and does not leave the node.
func TestNothingServes(t *testing.T) {
	c := shared(t)
	m := newService("nothing", 76)
	c.apply(t, m)
	var free []frontend
	for _, a := range []string{"10.96.77.77", "fd96::7777"} {
		free = append(free, frontend{kind: "unallocated", addr: netip.AddrPortFrom(netip.MustParseAddr(a), 80)})
	}
	leaks, err := c.N1.Sniff(t.Context(), "eth0", func(p testbed.Packet) bool {
		return p.Dst == free[0].addr && p.Src.Addr() != c.Out.Addr4 || p.Dst == free[1].addr && p.Src.Addr() != c.Out.Addr6
	})
	if err != nil {
		t.Fatal(err)
	}
	var dropped []expectation
	for _, cl := range []client{{c.A1, c.N1}, {c.N1, c.N1}, {c.Out, c.N1}} {
		for _, p := range []testbed.Proto{testbed.TCP, testbed.UDP} {
			for _, f := range append(m.frontends(c.N1), m.vips(81)...) {
				if _, err := cl.host.Ask(t.Context(), p, f.addr); refused(cl, err) != nil {
					t.Errorf("%s %s to %s: %v, want it refused", p, cl.host, f, err)
				}
			}
			for _, f := range free {
				dropped = append(dropped, expectation{cl, f, p, false})
			}
		}
	}
	c.checkAll(t, dropped)
	if n, err := leaks.Count(); n != 0 || err != nil {
		t.Errorf("%d packets to addresses that no Service has left the node (%v)", n, err)
	}
}
