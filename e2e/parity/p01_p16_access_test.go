//go:build e2e && linux

package parity

import (
	"context"
	"net/http"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// probe asks a health check node port as load balancers do; 0 stands for no answer.
func (r *row) probe(from *testbed.Host, s *service, at netip.Addr) int {
	client := from.HTTP()
	client.Timeout = patience
	resp, err := client.Get("http://" + netip.AddrPortFrom(at, uint16(s.Spec.HealthCheckNodePort)).String() + "/")
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// expectProbe waits until a health check answers with the code.
func (r *row) expectProbe(from *testbed.Host, s *service, at netip.Addr, want int) {
	r.Helper()
	deadline := time.Now().Add(time.Minute)
	for got := r.probe(from, s, at); got != want; got = r.probe(from, s, at) {
		if time.Now().After(deadline) {
			r.Errorf("%s asks the health check at %s: %d, want %d", from, at, got, want)
			return
		}
	}
}

// serve starts a server on a node until the end of the row.
func (r *row) serve(h *testbed.Host, proto testbed.Proto, port uint16) {
	r.Helper()
	s, err := h.Serve(r.Context(), proto, port)
	r.must(err)
	r.Cleanup(func() { _ = s.Close() })
}

// run runs a command on a host, also at the end of the row.
func (r *row) run(h *testbed.Host, command ...string) {
	r.Helper()
	if out, err := h.Command(context.WithoutCancel(r.Context()), command[0], command[1:]...).CombinedOutput(); err != nil {
		r.Fatalf("%v on %s: %v: %s", command, h, err, out)
	}
}

// at returns a frontend of the row's own making, one address a family.
func at(name string, proto testbed.Proto, port uint16, addrs ...netip.Addr) frontend {
	f := frontend{name: name, proto: proto}
	for _, a := range addrs {
		f.at = append(f.at, netip.AddrPortFrom(a, port))
	}
	return f
}

// TestP01PolicyLocal: without a local endpoint outside traffic is dropped at the node, and the health check says so.
func TestP01PolicyLocal(t *testing.T) {
	r := begin(t, "P01", "Policy Local without a local endpoint: outside traffic is dropped, nothing leaves, the health check says 503")
	s := r.service("p01", etpLocal)
	s.endpoints(ready(r.B1))
	r.settle()
	leaks, err := r.N1.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool {
		return p.Src.Addr() == r.Out.Addr(p.Src.Addr()) && p.Dst.Addr() == r.B1.Addr(p.Dst.Addr())
	})
	r.must(err)
	for _, f := range s.externals(r.N1) {
		r.expect(r.Out, f, dropped())
	}
	if n, err := leaks.Count(); n != 0 || err != nil {
		r.Errorf("%d packets of out left n1 towards b1 (%v)", n, err)
	}
	r.expectProbe(r.Out, s, r.N1.Addr4, http.StatusServiceUnavailable)
	r.expectProbe(r.Out, s, r.N2.Addr4, http.StatusOK)
}

// TestP08LoadBalancerAddress: an ingress with ipMode Proxy is not captured; with ipMode VIP what comes from the load
// balancer's address is answered.
func TestP08LoadBalancerAddress(t *testing.T) {
	r := begin(t, "P08", "ipMode Proxy is not captured, and a packet that comes from a VIP is answered")
	s := r.service("p08")
	s.endpoints(ready(r.A1))
	// The load balancer is n3, which has no proxy; its address is the ingress.
	s.ingress(r.N3.Addr4, r.N3.Addr6)
	r.settle()
	r.serve(r.N3, testbed.TCP, 80)
	v := at("V", testbed.TCP, 80, r.N3.Addr4, r.N3.Addr6)
	r.expect(r.A2, v, answeredBy(r.A1))
	r.expect(r.N3, s.N(r.N1), answeredBy(r.A1))
	services := r.client.CoreV1().Services(namespace)
	got, err := services.Get(r.Context(), s.Name, metav1.GetOptions{})
	r.must(err)
	for i := range got.Status.LoadBalancer.Ingress {
		got.Status.LoadBalancer.Ingress[i].IPMode = new(corev1.LoadBalancerIPModeProxy)
	}
	_, err = services.UpdateStatus(r.Context(), got, metav1.UpdateOptions{})
	r.must(err)
	r.settle()
	r.expect(r.A2, v, answeredBy(r.N3))
	r.expect(r.N1, v, answeredBy(r.N3))
}

// TestP10Guards: what must pass the guard of Service addresses does.
func TestP10Guards(t *testing.T) {
	r := begin(t, "P10", "The health check answers at a VIP, and a node's own address is not guarded")
	s := r.service("p10", etpLocal)
	s.endpoints(ready(r.A1))
	r.settle()
	r.expectProbe(r.Out, s, s.balancer[0], http.StatusOK)
	r.expectProbe(r.Out, s, s.balancer[1], http.StatusOK)
	r.expect(r.Out, s.E(), answeredBy(r.A1))
	r.expect(r.A2, s.E(), answeredBy(r.A1))
	own := r.service("p10-own", func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = []string{r.N1.Addr4.String(), r.N1.Addr6.String()}
	})
	own.endpoints(ready(r.A1))
	own.ingress(r.N1.Addr4, r.N1.Addr6)
	r.serve(r.N1, testbed.TCP, 2222)
	r.settle()
	r.expect(r.Out, at("N1", testbed.TCP, 80, r.N1.Addr4, r.N1.Addr6), answeredBy(r.A1))
	r.expect(r.Out, at("N1", testbed.TCP, 2222, r.N1.Addr4, r.N1.Addr6), answeredBy(r.N1))
}

// TestP12RangesAndTheNode: host processes are clients like any other.
func TestP12RangesAndTheNode(t *testing.T) {
	r := begin(t, "P12", "Source ranges: the address that a host process uses, or a pod has, must lie in them")
	none := []string{"192.0.2.0/24", "2001:db8::/64"}
	s := r.service("p12", sourceRanges(none...))
	s.endpoints(ready(r.A1))
	r.settle()
	check := func(node, pod bool) {
		r.Helper()
		for host, allowed := range map[*testbed.Host]bool{r.N1: node, r.A2: pod} {
			if allowed {
				r.expect(host, s.V(), answeredBy(r.A1))
			} else {
				r.expect(host, s.V(), dropped())
			}
		}
		for _, dst := range s.V().at {
			own := netip.AddrPortFrom(r.N1.Addr(dst.Addr()), 0)
			wait := patience
			if !node {
				wait = dropTime
			}
			_, err := r.N1.Ask(r.Context(), testbed.TCP, dst, testbed.From(own), testbed.Timeout(wait))
			if (err == nil) != node {
				r.Errorf("n1 from its own address to V (%s): %v, want an answer: %t", dst, err, node)
			}
		}
	}
	check(false, false)
	set := func(more ...string) {
		r.Helper()
		s.update(func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = append(none[:2:2], more...) })
		r.settle()
	}
	set(r.N1.Addr4.String()+"/32", r.N1.Addr6.String()+"/128")
	check(true, false)
	set(r.N1.Addr4.String()+"/32", r.N1.Addr6.String()+"/128", r.A2.Addr4.String()+"/32", r.A2.Addr6.String()+"/128")
	check(true, true)
}

// TestP13SharedAddress: Services on one load balancer IP share nothing else.
func TestP13SharedAddress(t *testing.T) {
	r := begin(t, "P13", "Services on one load balancer IP: ranges, policies, ports and deletion are each Service's own")
	port := func(n int32) option { return func(s *corev1.Service) { s.Spec.Ports[0].Port = n } }
	s1 := r.service("p13-1", etpLocal, sourceRanges("192.0.2.0/24", "2001:db8::/64"), port(7001))
	s2 := r.service("p13-2", port(8001))
	s3 := r.service("p13-3", over(testbed.UDP), port(7001))
	for _, s := range []*service{s1, s2, s3} {
		s.endpoints(ready(r.A1))
		s.ingress(s1.balancer...)
	}
	r.settle()
	v := func(proto testbed.Proto, port uint16) frontend { return at("V", proto, port, s1.balancer...) }
	r.expect(r.Out, v(testbed.TCP, 7001), dropped())
	r.expect(r.Out, v(testbed.TCP, 8001), answeredBy(r.A1))
	r.expect(r.Out, v(testbed.UDP, 7001), answeredBy(r.A1))
	held, err := r.Out.Dial(r.Context(), testbed.TCP, v(testbed.TCP, 8001).at[0])
	r.must(err)
	defer held.Close()
	s1.delete()
	r.settle()
	r.expect(r.Out, v(testbed.TCP, 8001), answeredBy(r.A1))
	r.expect(r.Out, v(testbed.UDP, 7001), answeredBy(r.A1))
	if err := held.Ping(); err != nil {
		r.Errorf("connection through the Service that stays: %v", err)
	}
}

// TestP14NothingServes: what is refused and what is dropped where nothing serves.
func TestP14NothingServes(t *testing.T) {
	r := begin(t, "P14", "No endpoints and other ports are refused; no endpoint for this view, and addresses that no Service has, are dropped")
	s := r.service("p14", over(testbed.TCP, testbed.UDP))
	local := r.service("p14-local", etpLocal)
	local.endpoints(ready(r.B1))
	r.settle()
	free := addrs("10.96.251.251", "fd96::fbfb")
	leaks, err := r.N1.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool {
		return p.Dst.Addr() == free[0] && p.Src.Addr() != r.Out.Addr4 || p.Dst.Addr() == free[1] && p.Src.Addr() != r.Out.Addr6
	})
	r.must(err)
	for _, client := range []*testbed.Host{r.A1, r.N1, r.Out} {
		for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
			p := s.overProto(proto)
			for _, f := range []frontend{p.C(), p.E(), p.V(), p.N(r.N1), p.C().onPort(81)} {
				r.expect(client, f, refused())
			}
			r.expect(client, at("free address", proto, 80, free...), dropped())
		}
	}
	r.expect(r.Out, local.V(), dropped())
	if n, err := leaks.Count(); n != 0 || err != nil {
		r.Errorf("%d packets to addresses that no Service has left n1 (%v)", n, err)
	}
}

// TestP16PolicyDrop: chain policies of the host do not concern Services.
func TestP16PolicyDrop(t *testing.T) {
	r := begin(t, "P16", "With INPUT and FORWARD policy DROP every frontend is served, and nothing else is opened")
	s, local := r.service("p16"), r.service("p16-local", etpLocal)
	s.endpoints(ready(r.A1), ready(r.B1))
	local.endpoints(ready(r.A1))
	r.serve(r.N1, testbed.TCP, 2222)
	r.settle()
	for _, tool := range []string{"iptables", "ip6tables"} {
		// What the test needs to go on: the node's own connections, and neighbour discovery.
		allow := [][]string{
			{"INPUT", "-i", "lo", "-j", "ACCEPT"}, {"INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"},
		}
		if tool == "ip6tables" {
			allow = append(allow, []string{"INPUT", "-p", "icmpv6", "-j", "ACCEPT"}, []string{"FORWARD", "-p", "icmpv6", "-j", "ACCEPT"})
		}
		for _, rule := range allow {
			r.run(r.N1, append([]string{tool, "-A"}, rule...)...)
		}
		for _, chain := range []string{"INPUT", "FORWARD"} {
			r.run(r.N1, tool, "-P", chain, "DROP")
		}
		r.Cleanup(func() {
			for _, chain := range []string{"INPUT", "FORWARD"} {
				_ = r.N1.Command(context.WithoutCancel(t.Context()), tool, "-P", chain, "ACCEPT").Run()
			}
			for _, rule := range allow {
				_ = r.N1.Command(context.WithoutCancel(t.Context()), tool, append([]string{"-D"}, rule...)...).Run()
			}
		})
	}
	for _, client := range []*testbed.Host{r.A2, r.N1, r.Out} {
		for _, f := range append(s.externals(r.N1), s.C()) {
			if client == r.Out && f.name == "C" {
				continue // its answers come from a pod on another node, which has another way back
			}
			r.expect(client, f, answeredBy(r.A1, r.B1))
		}
		for _, f := range local.externals(r.N1) {
			r.expect(client, f, answeredBy(r.A1))
		}
	}
	r.expectProbe(r.Out, local, r.N1.Addr4, http.StatusOK)
	r.expect(r.Out, at("a port of the host", testbed.TCP, 2222, r.N1.Addr4, r.N1.Addr6), dropped())
}
