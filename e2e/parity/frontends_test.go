//go:build e2e && linux

package parity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// clients are all that the truth table knows.
func (c *cluster) clients() []*testbed.Host { return []*testbed.Host{c.A2, c.C1, c.N1, c.Out} }

// TestSourceRanges: V-range.
func TestSourceRanges(t *testing.T) {
	r := begin(t, "V-range", "Load balancer IP, source not in loadBalancerSourceRanges: dropped, with or without endpoints; other frontends open")
	only := sourceRanges(r.Out.Addr4.String()+"/32", r.Out.Addr6.String()+"/128")
	s, empty := r.service("v-range", only), r.service("v-range-empty", only)
	s.endpoints(pods(r.A1, r.B1)...)
	empty.endpoints()
	r.settle()
	r.expect(r.Out, s.V(), answeredBy(r.A1, r.B1))
	r.expect(r.Out, empty.V(), refused())
	for _, client := range []*testbed.Host{r.A2, r.C1, r.N1} {
		r.expect(client, s.V(), dropped())
		r.expect(client, empty.V(), dropped())
		r.expect(client, s.E(), answeredBy(r.A1, r.B1))
		r.expect(client, s.N(r.N1), answeredBy(r.A1, r.B1))
	}
}

// TestProxyingLoadBalancer: V-proxy.
func TestProxyingLoadBalancer(t *testing.T) {
	r := begin(t, "V-proxy", "Load balancer IP with ipMode Proxy: not captured, packets leave for the load balancer")
	s := r.unbalanced("v-proxy") // an address that was captured before may be refused for a while
	s.endpoints(pods(r.A1, r.B1)...)
	s.ingressMode(corev1.LoadBalancerIPModeProxy, s.balancer...)
	r.settle()
	r.expect(r.A2, s.E(), answeredBy(r.A1, r.B1))
	for _, client := range []*testbed.Host{r.A2, r.N1} {
		for _, dst := range s.V().at {
			// The Service had the address in the other mode for a moment; a change of that kind may take two minutes
			// (section 11 of the service semantics), in which the address may still be refused.
			r.until("packets of "+client.Name+" leave for the load balancer", func() error {
				sniffer, err := r.N1.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool { return p.Outgoing && p.Dst == dst })
				if err != nil {
					return err
				}
				_, aerr := client.Ask(r.Context(), testbed.TCP, dst, testbed.Timeout(dropTime))
				if n, err := sniffer.Count(); n == 0 || err != nil || aerr == nil || errors.Is(aerr, testbed.ErrRefused) {
					return fmt.Errorf("to %s: %d packets leave (%v), the client gets %v", dst, n, err, aerr)
				}
				return nil
			})
		}
	}
}

// TestNodePortAddresses: N-other.
func TestNodePortAddresses(t *testing.T) {
	r := begin(t, "N-other", "Node port on a node address that nodePortAddresses does not select: not captured")
	r.restart(r.N1, "--nodeport-addresses=192.168.50.0/24,fd50::/64")
	s := r.service("n-other")
	s.endpoints(pods(r.A1, r.B1)...)
	r.settle()
	port := uint16(s.Spec.Ports[0].NodePort)
	_, err := r.N1.Serve(r.Context(), testbed.TCP, port) // whom packets reach that nobody captures
	r.must(err)
	other := frontend{name: "bridge:N", proto: testbed.TCP, at: s.N(r.N1).at}
	for i, f := range other.at {
		a := r.N1.Gateway4
		if f.Addr().Is6() {
			a = r.N1.Gateway6
		}
		other.at[i] = netip.AddrPortFrom(a, port)
	}
	for _, client := range []*testbed.Host{r.A2, r.N1} {
		r.expect(client, s.N(r.N1), answeredBy(r.A1, r.B1))
		r.expect(client, other, answeredBy(r.N1))
	}
}

// TestHealthCheckNodePort: H-any.
func TestHealthCheckNodePort(t *testing.T) {
	r := begin(t, "H-any", "healthCheckNodePort: answered to every client, 200 with a local endpoint, 503 without one")
	s := r.service("h-any", etpLocal)
	s.endpoints(ready(r.A1))
	r.settle()
	for _, client := range r.clients() {
		r.expectHealth(client, r.N1, s, http.StatusOK)
		r.expectHealth(client, r.N2, s, http.StatusServiceUnavailable)
	}
	s.endpoints()
	r.settle()
	for _, client := range r.clients() {
		r.expectHealth(client, r.N1, s, http.StatusServiceUnavailable)
	}
}

// expectHealth asks a node's healthCheckNodePort in both families, until it answers so: the server may follow a moment
// after the rules.
func (r *row) expectHealth(client, node *testbed.Host, s *service, want int) {
	r.Helper()
	if r.Failed() { // what is not served takes its time to say so, every time
		return
	}
	port := uint16(s.Spec.HealthCheckNodePort)
	for _, like := range families() {
		url := "http://" + netip.AddrPortFrom(node.Addr(like), port).String() + "/"
		try := func() error {
			got, err := status(r.Context(), client, url)
			if err == nil && got != want {
				err = fmt.Errorf("status %d", got)
			}
			return err
		}
		if err := r.soon(try); err != nil {
			r.Errorf("%s to healthCheckNodePort of %s: %v; want status %d", client, node, err, want)
		}
	}
}

// soon tries for a while, for what needs no waiting as a rule.
func (r *row) soon(try func() error) error { return within(10*time.Second, try) }

// status returns the status that the URL answers with.
func status(ctx context.Context, client *testbed.Host, url string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, dropTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.HTTP().Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// TestOtherPort: P-undef.
func TestOtherPort(t *testing.T) {
	r := begin(t, "P-undef", "ClusterIP, a port or protocol that no service port has: refused")
	s := r.service("p-undef", clusterIPOnly)
	s.endpoints(pods(r.A1, r.B1)...)
	r.settle()
	for _, client := range r.clients() {
		r.expect(client, s.C().onPort(81), refused())
		r.expect(client, s.C().by(testbed.UDP), refused())
	}
}

// TestNoDetector: X-L-nodet, for a subject that is not told which sources are local.
func TestNoDetector(t *testing.T) {
	setup := setUp(t)
	services := truthServices{}
	for _, c := range []struct {
		endpoints string
		hosts     []*testbed.Host
	}{{"both", []*testbed.Host{setup.A1, setup.B1}}, {"remote", []*testbed.Host{setup.B1}}, {"none", nil}} {
		s := setup.service("nodet-"+c.endpoints, etpLocal)
		s.endpoints(pods(c.hosts...)...)
		services["X-L "+c.endpoints] = s
	}
	setup.restart(setup.N1, "--cluster-cidr=")
	row := truth{"X-L-nodet", undetected, local, themselves, drop}
	for _, x := range setup.externalKinds() {
		id := row.id + "-" + x.kind
		t.Run(id, func(t *testing.T) { row.check(begin(t, id, row.title(id)), services, x.front) })
	}
}
