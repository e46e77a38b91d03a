//go:build e2e && linux

package parity

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// udpSenders says who sends to which frontend of a Service.
func (r *row) udpSenders(s *service) []struct {
	client *testbed.Host
	f      frontend
} {
	return []struct {
		client *testbed.Host
		f      frontend
	}{{r.A2, s.C()}, {r.A2, s.E()}, {r.Out, s.E()}, {r.Out, s.V()}, {r.Out, s.N(r.N1)}, {r.A2, s.N(r.N1)}}
}

// TestP26UDPMoves: a client that sends all the time from one port is answered by another pod when its own goes.
func TestP26UDPMoves(t *testing.T) {
	r := begin(t, "P26", "A UDP flow moves to another pod when its own is removed, or terminates and goes")
	s := r.service("p26", over(testbed.UDP))
	for _, leaving := range [][]endpoint{{}, {terminating(r.B1)}} {
		s.endpoints(ready(r.B1))
		r.settle()
		ports := make([]testbed.Option, len(r.udpSenders(s)))
		for i, x := range r.udpSenders(s) {
			ports[i] = freePort()
			r.reaches(x.client, x.f, ports[i], r.B1)
		}
		if len(leaving) > 0 {
			s.endpoints(append(leaving, ready(r.A1))...)
			r.settle()
		}
		s.endpoints(ready(r.A1))
		r.settle()
		for i, x := range r.udpSenders(s) {
			r.reaches(x.client, x.f, ports[i], r.A1)
		}
	}
}

// TestP27UDPOneWay: senders that nobody answers stop reaching a pod that is not theirs any more, and reach it again
// afterwards without beginning anew.
func TestP27UDPOneWay(t *testing.T) {
	r := begin(t, "P27", "One-way UDP senders do not reach the pod of a Service scaled to zero or deleted, and come back by themselves")
	s := r.service("p27", over(testbed.UDP))
	s.endpoints(ready(r.A1))
	r.settle()
	received, err := r.A1.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool {
		return !p.Outgoing && p.Dst.Port() == podPort && p.Proto == 17
	})
	r.must(err)
	for _, x := range r.udpSenders(s) {
		for _, dst := range x.f.at {
			sender, err := x.client.SendOneWay(r.Context(), dst)
			r.must(err)
			r.Cleanup(func() { _ = sender.Close() })
		}
	}
	count := func() int {
		n, err := received.Count()
		r.must(err)
		return n
	}
	flowing := func(what string) {
		before := count()
		r.until(what, func() error {
			if n := count() - before; n < 500 { // two rounds of all senders
				return fmt.Errorf("%d datagrams arrived", n)
			}
			return nil
		})
	}
	silent := func(what string) {
		r.until(what, func() error {
			before := count()
			r.settle() // takes longer than many datagrams
			if n := count() - before; n > 0 {
				return fmt.Errorf("%d datagrams still arrived", n)
			}
			return nil
		})
	}
	flowing("datagrams arrive")
	s.endpoints()
	r.settle()
	silent("none arrives without endpoints")
	s.endpoints(ready(r.A1))
	r.settle()
	flowing("datagrams arrive again")
	s.delete()
	r.settle()
	silent("none arrives after the Service was deleted")
}

// TestP28OlderFlows: a sender that began before a frontend existed is served once it does.
func TestP28OlderFlows(t *testing.T) {
	r := begin(t, "P28", "A UDP sender older than the frontend is served once it exists")
	s := r.service("p28", over(testbed.UDP), func(s *corev1.Service) { s.Spec.ExternalIPs = nil })
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	s.ingress()
	r.settle()
	// The addresses exist no more, and the node port's number is somebody else's: a number that no Service has yet.
	const number = 31999
	node := frontend{name: "n1:N", proto: testbed.UDP, at: []netip.AddrPort{
		netip.AddrPortFrom(r.N1.Addr4, number), netip.AddrPortFrom(r.N1.Addr6, number),
	}}
	ports := map[string]testbed.Option{}
	for _, f := range []frontend{s.V(), s.E(), node} {
		ports[f.name] = freePort()
		for _, dst := range f.at {
			if _, err := r.Out.Ask(r.Context(), testbed.UDP, dst, ports[f.name], testbed.Timeout(300*time.Millisecond)); err == nil {
				r.Fatalf("%s answers before it exists", f.name)
			}
		}
	}
	s.update(func(svc *corev1.Service) {
		for _, a := range s.external {
			svc.Spec.ExternalIPs = append(svc.Spec.ExternalIPs, a.String())
		}
		svc.Spec.Ports[0].NodePort = number
	})
	s.ingress(s.balancer...)
	r.settle()
	for _, f := range []frontend{s.V(), s.E(), node} {
		r.reaches(r.Out, f, ports[f.name], r.A1, r.B1)
	}
}

// TestP29ForeignFlow: a flow to somebody else on a port that is also a node port is left alone.
func TestP29ForeignFlow(t *testing.T) {
	r := begin(t, "P29", "A UDP flow of others on a node port's number is not cut when endpoints change")
	s := r.service("p29", over(testbed.UDP))
	s.endpoints(ready(r.A1))
	r.settle()
	number := s.N(r.N1).at[0].Port()
	_, err := r.Out.Serve(r.Context(), testbed.UDP, number)
	r.must(err)
	foreign := frontend{name: "foreign", proto: testbed.UDP, at: []netip.AddrPort{
		netip.AddrPortFrom(r.Out.Addr4, number), netip.AddrPortFrom(r.Out.Addr6, number),
	}}
	r.hold(r.N1, foreign)
	before := r.flowIDs(number)
	if before == "" {
		r.Fatalf("the flows to others are not tracked")
	}
	port := freePort()
	r.reaches(r.Out, s.N(r.N1), port, r.A1)
	s.endpoints(ready(r.B1))
	r.settle()
	r.reaches(r.Out, s.N(r.N1), port, r.B1)
	if after := r.flowIDs(number); after != before {
		r.Errorf("the flows had the identifiers [%s], and have [%s]", before, after)
	}
}

// flowIDs returns the identifiers of n1's tracked flows to the outside machine's port, in one line.
func (r *row) flowIDs(port uint16) string {
	r.Helper()
	out, err := r.N1.Command(r.Context(), "sh", "-c", fmt.Sprintf(
		"for a in %s %s; do conntrack -L -o id -p udp -d $a --orig-port-dst %d 2>/dev/null | grep -o 'id=[0-9]*' || true; done",
		r.Out.Addr4, r.Out.Addr6, port)).Output()
	r.must(err)
	return strings.Join(strings.Fields(string(out)), " ")
}
