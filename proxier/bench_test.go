package proxier_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/iptablestest"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/nftables/nftablestest"
	"github.com/kube-hop/kube-hop/proxier"
)

// The kernel of benchmarks takes every operation at no cost, so that what is measured is the daemon's.
type (
	freeTable  struct{ ipvs.Table }
	freeSets   struct{ iptables.Sets }
	freeTables struct{ nftables.Tables }
)

func (freeTable) Apply(context.Context, []ipvs.Op) []*ipvs.OpError            { return nil }
func (freeSets) Apply(context.Context, []iptables.SetOp) []*iptables.SetError { return nil }
func (freeTables) Apply(context.Context, []nftables.Op) []*nftables.OpError   { return nil }

// BenchmarkFirstSync is the first sync of a node, from all objects to the last operation.
func BenchmarkFirstSync(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				p := freeProxier(n)
				b.StartTimer()
				p.Sync(b.Context())
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "services/s")
		})
	}
}

func freeProxier(n int) *proxier.Proxier {
	plane := proxier.Dataplane{
		IPVS: freeTable{ipvstest.NewFake(nodeAddresses...)}, Sets: freeSets{iptablestest.NewFakeSets()},
		Rules: map[lb.Family]iptables.Rules{lb.IPv4: iptablestest.NewFakeRules()}, NFT: freeTables{nftablestest.NewFake()},
	}
	config := loopConfig(0)
	config.Render.NFTables = true
	p := proxier.New(config, plane, metrics.New(), time.Now)
	for i := range n {
		name := lb.Name{Namespace: "default", Name: fmt.Sprintf("s%d", i)}
		p.Tracker.SetService(lb.Service{
			Name: name, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			Ports: []lb.ServicePort{{Proto: lb.TCP, Port: 80}},
		})
		p.Tracker.SetEndpointSlice(freeSlice(i, name))
	}
	p.Tracker.Synced()
	return p
}

// freeSlice is the endpoints of the ith Service.
func freeSlice(i int, name lb.Name) lb.EndpointSlice {
	s := lb.EndpointSlice{Name: name, Service: name, Family: lb.IPv4, Ports: []lb.EndpointPort{{Proto: lb.TCP, Port: 8080}}}
	for j := range 10 {
		s.Endpoints = append(s.Endpoints, lb.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 244, byte(i), byte(j)}), Ready: true, Serving: true})
	}
	return s
}

// BenchmarkOneChange is what the daemon does about one endpoint that is replaced, among more and more Services: it must cost
// the same.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{1000, 5000, 20000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			p := freeProxier(n)
			p.Sync(b.Context())
			name := lb.Name{Namespace: "default", Name: "s7"}
			slices := [2]lb.EndpointSlice{freeSlice(7, name), freeSlice(7, name)}
			slices[1].Endpoints[9].Addr = netip.AddrFrom4([4]byte{10, 245, 0, 1})
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				p.Tracker.SetEndpointSlice(slices[i%2])
				p.Sync(b.Context())
			}
		})
	}
}
