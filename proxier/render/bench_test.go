package render

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/lb"
)

// clusterOf makes n ClusterIP Services with ten endpoints each.
func clusterOf(n int) ([]lb.Service, [][]lb.EndpointSlice) {
	services, slicesOf := make([]lb.Service, n), make([][]lb.EndpointSlice, n)
	for i := range n {
		name := lb.Name{Namespace: "default", Name: fmt.Sprintf("svc-%d", i)}
		services[i] = lb.Service{
			Name:       name,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			Ports:      []lb.ServicePort{{Proto: lb.TCP, Port: 80}},
		}
		s := lb.EndpointSlice{Name: name, Service: name, Family: lb.IPv4, Ports: []lb.EndpointPort{{Proto: lb.TCP, Port: 8080}}}
		for j := range 10 {
			s.Endpoints = append(s.Endpoints, lb.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 244, byte(i), byte(j)}), Ready: true, Serving: true})
		}
		slicesOf[i] = []lb.EndpointSlice{s}
	}
	return services, slicesOf
}

// BenchmarkInitial is objects to operations for a whole cluster, as at the first sync: in parts, with their record.
func BenchmarkInitial(b *testing.B) {
	for _, n := range []int{1000, 5000, 20000} {
		services, slicesOf := clusterOf(n)
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m := NewModel(testFacts, testConfig)
				for i, s := range services {
					m.Update(s.Name, s, slicesOf[i], true)
				}
				st, ops := NewState(), 0
				for _, part := range m.Chunks(m.Everything(st), 512, lb.Name{}) {
					p := Diff(m, st, part)
					st.Record(p...)
					ops += len(p)
				}
				if ops < 12*n {
					b.Fatalf("%d operations", ops)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "services/s")
		})
	}
}

// BenchmarkOneEndpoint is one changed endpoint among n Services: its cost must not depend on n.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, n := range []int{1000, 10000, 20000} {
		services, slicesOf := clusterOf(n)
		m := NewModel(testFacts, testConfig)
		for i, s := range services {
			m.Update(s.Name, s, slicesOf[i], true)
		}
		st := Desired(m)
		full := slicesOf[n/2][0]
		fewer := full
		fewer.Endpoints = full.Endpoints[:9]
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s := fewer
				if i%2 == 1 {
					s = full
				}
				p := Diff(m, st, m.Update(services[n/2].Name, services[n/2], []lb.EndpointSlice{s}, true))
				if len(p) != 1 {
					b.Fatalf("%d operations, want 1", len(p))
				}
				st.Record(p[0])
			}
		})
	}
}
