package ipvstest

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
)

func virtualOfEveryKind(b *bench) {
	want := map[ipvs.Key]ipvs.VirtualServer{}
	for _, k := range keys() {
		b.do(addVirtual(k, rr))
		want[k] = ipvs.VirtualServer{Config: rr}
	}
	b.wantVirtual(want)
	for _, k := range keys() {
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
		delete(want, k)
		b.wantVirtual(want)
	}
}

func virtualIdempotent(b *bench) {
	for _, k := range keys() {
		for range 2 {
			b.do(addVirtual(k, rr))
			b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr}})
		}
		for range 2 {
			b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
			b.want(ipvs.State{})
		}
	}
}

// editVirtualInPlace: both verbs make the configuration equal, back to the plain one too, and real servers stay.
func editVirtualInPlace(b *bench) {
	full := ipvs.Config{Scheduler: "mh", Persistence: 3 * time.Hour, Flags: ipvs.FlagsAll}
	for _, k := range keys() {
		list := []ipvs.RealServer{server(k, 1), weighing(server(k, 2), 0)}
		b.do(addVirtual(k, rr), addReal(k, list[0]), addReal(k, list[1]))
		for _, op := range []ipvs.Op{addVirtual(k, full), addVirtual(k, rr), editVirtual(k, full), editVirtual(k, full), editVirtual(k, rr)} {
			b.do(op)
			b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: op.Config, Real: list}})
		}
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
	}
}

func editVirtualAddsTheAbsent(b *bench) {
	c := ipvs.Config{Scheduler: "wlc", Persistence: time.Minute}
	want := map[ipvs.Key]ipvs.VirtualServer{}
	for _, k := range keys() {
		b.do(editVirtual(k, c))
		want[k] = ipvs.VirtualServer{Config: c}
	}
	b.wantVirtual(want)
}

// keysAreApart: keys that differ in one field, or are small or large, are different virtual servers.
func keysAreApart(b *bench) {
	base := keys()[0]
	list := []ipvs.Key{
		base,
		{Addr: base.Addr.Next(), Port: base.Port, Proto: base.Proto},
		{Addr: base.Addr, Port: base.Port + 1, Proto: base.Proto},
		{Addr: base.Addr, Port: 1, Proto: base.Proto},
		{Addr: base.Addr, Port: 65535, Proto: base.Proto},
		{Addr: base.Addr, Port: base.Port, Proto: ipvs.UDP},
		{Addr: netip.MustParseAddr("127.0.0.1"), Port: base.Port, Proto: base.Proto},
		{Addr: netip.MustParseAddr("::1"), Port: base.Port, Proto: base.Proto},
		// Looks like an IPv4 address in the first four of sixteen bytes.
		{Addr: netip.MustParseAddr("2001:db8::"), Port: base.Port, Proto: base.Proto},
		{Addr: netip.IPv4Unspecified(), Mark: 1},
		{Addr: netip.IPv4Unspecified(), Mark: 2},
		{Addr: netip.IPv6Unspecified(), Mark: 2},
		{Addr: netip.IPv4Unspecified(), Mark: 1<<32 - 1},
	}
	want := map[ipvs.Key]ipvs.VirtualServer{}
	for i, k := range list {
		c := ipvs.Config{Scheduler: "rr", Persistence: time.Duration(i) * time.Second}
		b.do(addVirtual(k, c), addReal(k, server(k, i)))
		want[k] = ipvs.VirtualServer{Config: c, Real: []ipvs.RealServer{server(k, i)}}
		b.wantVirtual(want)
	}
}

func everyScheduler(b *bench) {
	k := keys()[0]
	for _, s := range schedulers {
		c := ipvs.Config{Scheduler: s}
		b.do(addVirtual(k, c), addReal(k, server(k, 1)))
		b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: c, Real: []ipvs.RealServer{server(k, 1)}}})
	}
}

// unknownScheduler: the kernel's errno for it is ENOENT, which must not be taken for an absent virtual server.
func unknownScheduler(b *bench) {
	k, none := keys()[0], ipvs.Config{Scheduler: "no-such"}
	for _, op := range []ipvs.Op{addVirtual(k, none), editVirtual(k, none)} {
		for _, err := range b.refuse(op) {
			if !errors.Is(err, syscall.ENOENT) {
				b.Errorf("%v", err)
			}
		}
		b.want(ipvs.State{})
	}
	persistent := ipvs.Config{Scheduler: "rr", Persistence: time.Minute, Flags: ipvs.FlagSched1}
	b.do(addVirtual(k, persistent), addReal(k, server(k, 1)))
	b.refuse(addVirtual(k, none), editVirtual(k, none))
	b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: persistent, Real: []ipvs.RealServer{server(k, 1)}}})
}

func persistenceAndFlags(b *bench) {
	times := []time.Duration{0, time.Second, 3 * time.Hour, 24 * time.Hour, ipvs.MaxPersistence, 0}
	for _, k := range keys() {
		for _, p := range times {
			c := ipvs.Config{Scheduler: "sh", Persistence: p}
			b.do(addVirtual(k, c))
			b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: c}})
		}
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
	}
	k := keys()[0]
	for f := range ipvs.FlagsAll + 1 {
		if f&^ipvs.FlagsAll != 0 {
			continue
		}
		c := ipvs.Config{Scheduler: "sh", Flags: f, Persistence: time.Duration(f/ipvs.FlagOnePacket%2) * time.Minute}
		b.do(addVirtual(k, c))
		b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: c}})
	}
}

func manyVirtual(b *bench) {
	want := map[ipvs.Key]ipvs.VirtualServer{}
	var ops []ipvs.Op
	for i := range 1000 {
		k := ipvs.Key{Addr: server(keys()[i%2], i).Addr, Port: uint16(i + 1), Proto: ipvs.UDP} //nolint:gosec // small
		want[k] = ipvs.VirtualServer{Config: rr}
		ops = append(ops, addVirtual(k, rr))
	}
	b.do(ops...)
	b.wantVirtual(want)
	for i := range ops {
		ops[i] = ipvs.Op{Verb: ipvs.DeleteVirtual, Key: ops[i].Key}
	}
	b.do(ops...)
	b.want(ipvs.State{})
}

func deleteVirtualTakesReal(b *bench) {
	for _, k := range keys() {
		b.do(addVirtual(k, rr), addReal(k, server(k, 1)), ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}, addVirtual(k, rr))
		b.wantVirtual(map[ipvs.Key]ipvs.VirtualServer{k: {Config: rr}})
		b.do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
	}
}
