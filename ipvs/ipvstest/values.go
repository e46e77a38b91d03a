package ipvstest

import (
	"net/netip"

	"github.com/kube-hop/kube-hop/ipvs"
)

var rr = ipvs.Config{Scheduler: "rr"} //nolint:gochecknoglobals // a constant

// keys returns a virtual server of each kind.
func keys() []ipvs.Key {
	v4, v6 := netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")
	var list []ipvs.Key
	for _, proto := range []ipvs.Proto{ipvs.TCP, ipvs.UDP, ipvs.SCTP} {
		list = append(list, ipvs.Key{Addr: v4, Port: 53, Proto: proto}, ipvs.Key{Addr: v6, Port: 53, Proto: proto})
	}
	return append(list, ipvs.Key{Addr: netip.IPv4Unspecified(), Mark: 7}, ipvs.Key{Addr: netip.IPv6Unspecified(), Mark: 7})
}

// server returns the nth real server for a virtual server, n up to 65,535, with weight 1.
func server(k ipvs.Key, n int) ipvs.RealServer {
	hi, lo := byte(n>>8), byte(n)
	d := ipvs.Dest{Addr: netip.AddrFrom4([4]byte{10, 244, hi, lo}), Port: 8080}
	if k.Addr.Is6() {
		d.Addr = netip.AddrFrom16([16]byte{0xfd, 0, 2, 0x44, 14: hi, 15: lo})
	}
	return ipvs.RealServer{Dest: d, Weight: 1}
}

// weighing returns the real server with another weight.
func weighing(r ipvs.RealServer, weight int) ipvs.RealServer {
	r.Weight = weight
	return r
}

func addVirtual(k ipvs.Key, c ipvs.Config) ipvs.Op {
	return ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: c}
}

func editVirtual(k ipvs.Key, c ipvs.Config) ipvs.Op {
	return ipvs.Op{Verb: ipvs.EditVirtual, Key: k, Config: c}
}

func addReal(k ipvs.Key, r ipvs.RealServer) ipvs.Op {
	return ipvs.Op{Verb: ipvs.AddReal, Key: k, Real: r}
}

func editReal(k ipvs.Key, r ipvs.RealServer) ipvs.Op {
	return ipvs.Op{Verb: ipvs.EditReal, Key: k, Real: r}
}

func deleteReal(k ipvs.Key, d ipvs.Dest) ipvs.Op {
	return ipvs.Op{Verb: ipvs.DeleteReal, Key: k, Real: ipvs.RealServer{Dest: d}}
}

func bind(prefix string, source netip.Addr) ipvs.Op {
	return ipvs.Op{Verb: ipvs.Bind, Prefix: netip.MustParsePrefix(prefix), Source: source}
}

func unbind(prefix string) ipvs.Op {
	return ipvs.Op{Verb: ipvs.Unbind, Prefix: netip.MustParsePrefix(prefix)}
}

// prefixes returns prefixes of several lengths, nested and side by side, each with a source of its family.
func prefixes() map[netip.Prefix]netip.Addr {
	s := Sources()
	m := map[netip.Prefix]netip.Addr{}
	for _, p := range []string{"10.96.0.0/12", "10.96.0.0/16", "10.96.0.0/32", "10.96.0.10/32", "203.0.113.7/32"} {
		m[netip.MustParsePrefix(p)] = s[0]
	}
	for _, p := range []string{"fd00:96::/108", "fd00:96::/112", "fd00:96::/128", "fd00:96::a/128", "2001:db8:2::7/128"} {
		m[netip.MustParsePrefix(p)] = s[2]
	}
	return m
}
