package ipvsnl_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
)

// virtual is the virtual server of all real servers.
var virtual = ipvs.Key{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80, Proto: ipvs.TCP}

type applying struct {
	name     string
	add, del func(i uint32) ipvs.Op
}

// BenchmarkApply shows the cost of one operation of each kind, among as many objects as the run is long.
func BenchmarkApply(b *testing.B) {
	for _, c := range applied() {
		for _, verb := range []string{"Add", "Delete"} {
			b.Run(verb+c.name, func(b *testing.B) {
				n := newNode(b)
				n.do(b, ipvs.Op{Verb: ipvs.AddVirtual, Key: virtual, Config: ipvs.Config{Scheduler: "rr"}}, bind("10.255.0.0/16", netip.Addr{}))
				ops := make([]ipvs.Op, b.N)
				for i := range ops {
					ops[i] = c.add(uint32(i))
				}
				if verb == "Delete" {
					n.do(b, ops...)
					for i := range ops {
						ops[i] = c.del(uint32(i))
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				n.do(b, ops...)
			})
		}
	}
}

// applied returns the ith operation of each kind.
func applied() []applying {
	return []applying{
		{
			"Virtual",
			func(i uint32) ipvs.Op {
				return ipvs.Op{Verb: ipvs.AddVirtual, Key: ipvs.Key{Addr: v4(i), Port: 80, Proto: ipvs.TCP}, Config: ipvs.Config{Scheduler: "rr"}}
			},
			func(i uint32) ipvs.Op {
				return ipvs.Op{Verb: ipvs.DeleteVirtual, Key: ipvs.Key{Addr: v4(i), Port: 80, Proto: ipvs.TCP}}
			},
		},
		{
			"Real",
			func(i uint32) ipvs.Op {
				return ipvs.Op{Verb: ipvs.AddReal, Key: virtual, Real: ipvs.RealServer{Dest: ipvs.Dest{Addr: v4(i % 100), Port: 1 + uint16(i/100)}, Weight: 1}}
			},
			func(i uint32) ipvs.Op {
				return ipvs.Op{Verb: ipvs.DeleteReal, Key: virtual, Real: ipvs.RealServer{Dest: ipvs.Dest{Addr: v4(i % 100), Port: 1 + uint16(i/100)}}}
			},
		},
		{
			"Bind",
			func(i uint32) ipvs.Op {
				return ipvs.Op{Verb: ipvs.Bind, Prefix: netip.PrefixFrom(v4(i), 32), Source: ipvstest.Sources()[0]}
			},
			func(i uint32) ipvs.Op { return ipvs.Op{Verb: ipvs.Unbind, Prefix: netip.PrefixFrom(v4(i), 32)} },
		},
		{
			"Bind6",
			func(i uint32) ipvs.Op {
				return ipvs.Op{Verb: ipvs.Bind, Prefix: netip.PrefixFrom(v6(i), 128), Source: ipvstest.Sources()[2]}
			},
			func(i uint32) ipvs.Op { return ipvs.Op{Verb: ipvs.Unbind, Prefix: netip.PrefixFrom(v6(i), 128)} },
		},
	}
}

func v4(i uint32) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|1<<16+i)
	return netip.AddrFrom4(a)
}

func v6(i uint32) netip.Addr {
	a := [16]byte{0: 0xfd}
	binary.BigEndian.PutUint32(a[12:], i)
	return netip.AddrFrom16(a)
}
