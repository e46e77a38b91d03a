package proxier_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/iptablestest"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/nftables/nftablestest"
	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// TestPlanningAhead: what is planned while another part of the cluster is being applied is what would be planned after it,
// also where the parts share an address that is too large for one of them, a range, or the view of a Service.
func TestPlanningAhead(t *testing.T) {
	plane := proxier.Dataplane{
		IPVS: ipvstest.NewFake(nodeAddresses...), Sets: iptablestest.NewFakeSets(), NFT: nftablestest.NewFake(),
		Rules: map[lb.Family]iptables.Rules{lb.IPv4: iptablestest.NewFakeRules(), lb.IPv6: iptablestest.NewFakeRules()},
	}
	config := loopConfig(0)
	config.Render.NFTables, config.Render.IPv6 = true, true
	p := proxier.New(config, plane, metrics.New(), time.Now)
	p.Tracker.SetServiceCIDRs([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/112")})
	const n = 1800
	for i := range n {
		s, slice := connectedService(i)
		p.Tracker.SetService(s)
		p.Tracker.SetEndpointSlice(slice)
	}
	p.Tracker.Synced()

	ran := map[string]int{}
	kinds := map[render.Phase]bool{}
	p.Observe = func(done render.Plan) {
		for _, o := range done {
			ran[o.String()]++
			kinds[o.Phase] = true
		}
	}
	p.Sync(t.Context())
	if len(ran) < 10*n || !kinds[render.PhaseInside] || !kinds[render.PhaseBind] {
		t.Fatalf("%d operations in the phases %v: not what is to be tested", len(ran), kinds)
	}
	for op, times := range ran {
		if times != 1 {
			t.Errorf("ran %d times: %s", times, op)
		}
	}

	clear(ran)
	p.Verify(t.Context())
	for op := range ran {
		t.Errorf("was lacking after the first sync: %s", op)
	}
}

// connectedService is one of Services that have something in common with others far from them in the order of addresses.
func connectedService(i int) (lb.Service, lb.EndpointSlice) {
	hi, lo := byte(i>>8), byte(i)
	name := lb.Name{Namespace: "default", Name: fmt.Sprintf("s%d", i)}
	s := lb.Service{
		Name:       name,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, hi, lo}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x96, 14: hi, 15: lo})},
		Ports:      []lb.ServicePort{{Name: "a", Proto: lb.TCP, Port: uint16(1000 + i)}},
	}
	switch i % 3 {
	case 0:
		s.Ports = append(s.Ports, lb.ServicePort{Name: "b", Proto: lb.UDP, Port: 53}, lb.ServicePort{Name: "c", Proto: lb.SCTP, Port: 99})
	case 1: // views come before addresses, and these addresses before all others
		s.ExternalLocal = true
		s.ExternalIPs = []netip.Addr{netip.AddrFrom4([4]byte{1, 51, hi, lo})}
		s.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, lo, hi})}
	case 2:
		s.ExternalIPs = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		s.Ports = append(s.Ports, lb.ServicePort{Name: "b", Proto: lb.UDP, Port: uint16(1000 + i)}, lb.ServicePort{Name: "c", Proto: lb.SCTP, Port: uint16(1000 + i)})
	}
	slice := lb.EndpointSlice{Name: name, Service: name, Family: lb.IPv4}
	for _, port := range s.Ports {
		slice.Ports = append(slice.Ports, lb.EndpointPort{Name: port.Name, Proto: port.Proto, Port: 8080})
	}
	for j := range byte(2) {
		slice.Endpoints = append(slice.Endpoints, lb.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 244, lo, hi + j}), Ready: true, Serving: true, NodeName: fmt.Sprintf("n%d", j+1)})
	}
	return s, slice
}
