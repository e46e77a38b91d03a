//go:build e2e && linux

package suite

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// hostPort is where a process of the node listens on all addresses, as sshd does.
const hostPort = 2222

// serveOn starts an echo server that ends with the test.
func serveOn(t *testing.T, h *testbed.Host, proto testbed.Proto, port uint16) *testbed.Server {
	t.Helper()
	s, err := h.Serve(t.Context(), proto, port)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOnlyServicePorts: what listens on the node is reached at the node's addresses and never at a Service's, not
// even for a moment while the Service comes, changes and goes.
func TestOnlyServicePorts(t *testing.T) {
	c := shared(t)
	m := newService("ports", 4, c.A1)
	c.apply(t, m)
	var servers []*testbed.Server
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		servers = append(servers, serveOn(t, c.N1, proto, hostPort))
		t.Run(string(proto), func(t *testing.T) {
			for _, cl := range []client{{c.A1, c.N1}, {c.N1, c.N1}, {c.Out, c.N1}} {
				for _, f := range m.vips(hostPort) {
					_, err := cl.host.Ask(t.Context(), proto, f.addr)
					if err := refused(cl, err); err != nil {
						t.Errorf("%s to %s: %v", cl.host, f, err)
					}
				}
				for _, addr := range []netip.Addr{c.N1.Addr4, c.N1.Addr6} {
					a, err := cl.host.Ask(t.Context(), proto, netip.AddrPortFrom(addr, hostPort))
					if err != nil || a.Pod != "n1" {
						t.Errorf("%s to %s: answered by %q, %v; want n1", cl.host, addr, a.Pod, err)
					}
				}
			}
		})
	}
	t.Run("while it comes and goes", func(t *testing.T) { c.hammer(t, m, servers) })
}

// hammer asks for the node's port at the Service's addresses without a pause, while the Service is made, changed and
// deleted 20 times.
func (c *cluster) hammer(t *testing.T, m *manifest, servers []*testbed.Server) {
	for _, s := range servers {
		s.Reset()
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, from := range []*testbed.Host{c.A2, c.N1, c.Out} {
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, f := range m.vips(hostPort) {
					for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
						// What matters is what the servers see.
						_, _ = from.Ask(ctx, proto, f.addr, testbed.Timeout(50*time.Millisecond))
					}
				}
			}
		})
	}
	c.comeAndGo(t, m, 20)
	stop()
	wg.Wait()
	for _, s := range servers {
		if seen := s.Seen(); len(seen) > 0 {
			t.Errorf("%s port %d of the node was reached at a Service's address, by client: %v", s.Proto, s.Port, seen)
		}
	}
}

// comeAndGo makes, changes and deletes a Service, and waits for the external IP of n1 each time.
func (c *cluster) comeAndGo(t *testing.T, m *manifest, rounds int) {
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(m.addr(externalIP, 6), port) }
	await := func(addr netip.AddrPort, present bool) {
		eventually(t, startLimit, func() error { return c.nodes[0].want(testbed.TCP, addr, present) })
	}
	first := m.text()
	for i := range m.Spec.Ports {
		m.Spec.Ports[i].Port = 81
	}
	second := m.text()
	for range rounds {
		c.put(t, m.Name, first)
		await(at(80), true)
		c.put(t, m.Name, second)
		await(at(81), true)
		await(at(80), false)
		c.drop(t, m.Name)
		await(at(81), false)
	}
}

// TestEndpointPorts: a Service port finds its endpoints by name, not by number; all slices count, each endpoint once.
func TestEndpointPorts(t *testing.T) {
	c := shared(t)
	m := newService("endpoint-ports", 5)
	http := m.Spec.Ports[0]
	http.Name = "http"
	admin := http
	admin.Name, admin.Port, admin.NodePort = "admin", 8443, 0
	m.Spec.Ports = append(m.Spec.Ports[:0], http, admin)
	for _, pod := range []*testbed.Host{c.A2, c.B2} {
		serveOn(t, pod, testbed.TCP, 8081)
		serveOn(t, pod, testbed.TCP, 9443)
	}
	m.Slices = nil
	for _, family := range []int{4, 6} {
		on := func(number int32) endpointPorts {
			return endpointPorts{endpointPort("http", testbed.TCP, number)}
		}
		m.Slices = append(m.Slices,
			m.slice("one", family, on(8080), c.A2),
			m.slice("two", family, append(on(8081), endpointPort("admin", testbed.TCP, 9443)), c.B2),
			m.slice("copy", family, on(8080), c.A2),
		)
	}
	c.apply(t, m)
	for _, family := range []int{4, 6} {
		http := m.at(family)
		admin := netip.AddrPortFrom(http.Addr(), 8443)
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			err := sameMap(c.nodes[0].weights(t, testbed.TCP, http),
				map[string]int{endpoint(c.A2, http, 8080): 1, endpoint(c.B2, http, 8081): 1})
			if err != nil {
				t.Error("http: ", err)
			}
			err = sameMap(c.nodes[0].weights(t, testbed.TCP, admin), map[string]int{endpoint(c.B2, http, 9443): 1})
			if err != nil {
				t.Error("admin: ", err)
			}
			c.askEvenly(t, client{c.A1, c.N1}, testbed.TCP, frontend{kind: clusterIP, addr: http}, "a2", "b2")
			c.askEvenly(t, client{c.A1, c.N1}, testbed.TCP, frontend{kind: clusterIP, addr: admin}, "b2")
		})
	}
}
