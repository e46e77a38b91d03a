package render

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/kube-hop/kube-hop/lb"
)

// cluster makes random Services over so few addresses, ports and names that they clash often.
type cluster struct {
	r *rand.Rand
}

func newCluster(seed uint64) cluster { return cluster{rand.New(rand.NewPCG(seed, 1))} }

func (c cluster) chance(percent int) bool { return c.r.IntN(100) < percent }

func (c cluster) name() lb.Name {
	return lb.Name{Namespace: "default", Name: fmt.Sprintf("svc-%d", c.r.IntN(8))}
}

func (c cluster) addr4(a, b, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a), byte(b), 0, byte(c.r.IntN(n) + 1)})
}

func (c cluster) service(n lb.Name) lb.Service {
	s := lb.Service{Name: n, Created: int64(c.r.IntN(3)), ExternalLocal: c.chance(30), InternalLocal: c.chance(20)}
	s.ClusterIPs = []netip.Addr{c.addr4(10, 96, 12)}
	if c.chance(30) {
		s.ClusterIPs[0] = c.addr4(10, 77, 4) // outside of every ServiceCIDR
	}
	if c.chance(40) {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(fmt.Sprintf("fd96::%d", c.r.IntN(9)+1)))
	}
	for c.chance(40) && len(s.ExternalIPs) < 3 {
		s.ExternalIPs = append(s.ExternalIPs, c.addr4(198, 51, 3))
	}
	if c.chance(20) {
		s.ExternalIPs = append(s.ExternalIPs, netip.MustParseAddr("192.168.50.11")) // this node's own
	}
	if c.chance(20) {
		s.ExternalIPs = append(s.ExternalIPs, netip.MustParseAddr("192.168.50.12")) // another node's
	}
	if c.chance(40) {
		s.LoadBalancerIPs = append(s.LoadBalancerIPs, c.addr4(203, 0, 3))
	}
	for _, r := range []string{"192.0.2.0/24", "198.18.0.0/15", "fd99::/64", "0.0.0.0/0"} {
		if c.chance(20) {
			s.SourceRanges = append(s.SourceRanges, netip.MustParsePrefix(r))
		}
	}
	if c.chance(20) {
		s.Affinity = time.Duration(c.r.IntN(3)) * time.Hour
	}
	if c.chance(20) {
		s.Scheduler = "lc"
	}
	if s.ExternalLocal && c.chance(60) {
		s.HealthCheckNodePort = uint16(30081 + c.r.IntN(3)) // clashes with node ports
	}
	for i := range 1 + c.r.IntN(3) {
		p := lb.ServicePort{Name: fmt.Sprintf("p%d", i), Proto: []lb.Proto{lb.TCP, lb.UDP, lb.SCTP}[c.r.IntN(3)], Port: uint16(80 + c.r.IntN(3))}
		if c.chance(50) {
			p.NodePort = uint16(30080 + c.r.IntN(3))
		}
		s.Ports = append(s.Ports, p)
	}
	return s
}

func (c cluster) slices(n lb.Name) []lb.EndpointSlice {
	var out []lb.EndpointSlice
	for i := range c.r.IntN(3) {
		s := lb.EndpointSlice{Name: lb.Name{Namespace: n.Namespace, Name: fmt.Sprintf("%s-%d", n.Name, i)}, Service: n, Family: lb.IPv4}
		for j := range 3 {
			s.Ports = append(s.Ports, lb.EndpointPort{Name: fmt.Sprintf("p%d", j), Proto: []lb.Proto{lb.TCP, lb.UDP, lb.SCTP}[c.r.IntN(3)], Port: uint16(8080 + c.r.IntN(2))})
		}
		for range c.r.IntN(5) {
			s.Endpoints = append(s.Endpoints, lb.Endpoint{
				Addr: c.addr4(10, 244, 9), NodeName: fmt.Sprintf("n%d", 1+c.r.IntN(2)),
				Ready: c.chance(70), Serving: c.chance(80), Terminating: c.chance(20),
			})
		}
		out = append(out, s)
	}
	return out
}

var testFacts = Facts{
	Node:         lb.Node{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.168.50.11"), netip.MustParseAddr("fd50::11")}},
	Local:        []netip.Addr{netip.MustParseAddr("192.168.50.11"), netip.MustParseAddr("fd50::11")},
	NodePorts:    []netip.Addr{netip.MustParseAddr("192.168.50.11"), netip.MustParseAddr("100::8")}, // and a stand-in
	Loopback:     []netip.Addr{netip.MustParseAddr("192.168.50.11"), netip.MustParseAddr("100::8")},
	OnLink:       []netip.Prefix{netip.MustParsePrefix("192.168.50.0/24")},
	ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
}

var testConfig = Config{Scheduler: "rr", MasqueradeBit: 14, NFTables: true, Loopback: true, IPv4: true, IPv6: true}
