package ipvstest

import (
	"maps"
	"net/netip"

	"github.com/kube-hop/kube-hop/ipvs"
)

func bindUnbind(b *bench) {
	want := map[netip.Prefix]netip.Addr{}
	for p, source := range prefixes() {
		for range 2 {
			b.do(ipvs.Op{Verb: ipvs.Bind, Prefix: p, Source: source})
			want[p] = source
			b.wantBound(want)
		}
	}
	for p := range maps.Clone(want) {
		for range 2 {
			b.do(ipvs.Op{Verb: ipvs.Unbind, Prefix: p})
			delete(want, p)
			b.wantBound(want)
		}
	}
}

// bindRange: prefixes that contain one another, or begin alike, do not touch each other.
func bindRange(b *bench) {
	all := prefixes()
	for p := range all {
		want := maps.Clone(all)
		for q, source := range all {
			b.do(ipvs.Op{Verb: ipvs.Bind, Prefix: q, Source: source})
		}
		b.do(ipvs.Op{Verb: ipvs.Unbind, Prefix: p})
		delete(want, p)
		b.wantBound(want)
	}
}

func bindSourceChange(b *bench) {
	s := Sources()
	for prefix, list := range map[string][]netip.Addr{
		"10.96.0.10/32":  {{}, s[0], s[1], s[1], {}, s[0]},
		"10.96.0.0/12":   {s[0], {}, s[1]},
		"fd00:96::a/128": {{}, s[2], s[3], s[3], {}, s[2]},
		"fd00:96::/112":  {s[2], {}, s[3]},
	} {
		for _, source := range list {
			b.do(bind(prefix, source))
			b.wantBound(map[netip.Prefix]netip.Addr{netip.MustParsePrefix(prefix): source})
		}
		b.do(unbind(prefix))
		b.wantBound(nil)
	}
}

// bindForeignSource: a source must be an address of the node; the binding that is there stays as it is.
func bindForeignSource(b *bench) {
	for prefix, foreign := range map[string]string{"10.96.0.10/32": "198.51.100.9", "fd00:96::a/128": "2001:db8:ffff::9"} {
		source := prefixes()[netip.MustParsePrefix(prefix)]
		op := bind(prefix, netip.MustParseAddr(foreign))
		b.refuse(op)
		b.wantBound(nil)
		b.do(bind(prefix, source))
		b.refuse(op)
		b.wantBound(map[netip.Prefix]netip.Addr{op.Prefix: source})
		b.do(unbind(prefix))
	}
}

// bindMany: more than fit into one answer of the kernel.
func bindMany(b *bench) {
	want := map[netip.Prefix]netip.Addr{}
	var ops []ipvs.Op
	for i := range 600 {
		a := server(keys()[i%2], i).Addr
		p := netip.PrefixFrom(a, a.BitLen())
		want[p] = Sources()[i%2*2]
		ops = append(ops, ipvs.Op{Verb: ipvs.Bind, Prefix: p, Source: want[p]})
	}
	b.do(ops...)
	b.wantBound(want)
}

// bindPort: single ports are bound and unbound, each protocol by itself, repeatedly, without a trace on others. All of a
// family have the source of the last that was bound.
func bindPort(b *bench) {
	s := Sources()
	want := map[ipvs.Key]netip.Addr{}
	for i, k := range keys() {
		if k.Mark != 0 || k.Port == 0 {
			b.refuse(ipvs.Op{Verb: ipvs.BindPort, Key: k})
			continue
		}
		source := s[i%2]
		if k.Addr.Is6() {
			source = s[2+i%2]
		}
		for range 2 {
			b.do(ipvs.Op{Verb: ipvs.BindPort, Key: k, Source: source})
			want[k] = source
			for o := range want {
				if o.Addr.Is4() == k.Addr.Is4() {
					want[o] = source
				}
			}
			b.want(ipvs.State{Ports: want})
		}
	}
	if len(want) < 4 {
		b.Fatalf("ports of only %d keys", len(want))
	}
	for k := range maps.Clone(want) {
		for range 2 {
			b.do(ipvs.Op{Verb: ipvs.UnbindPort, Key: k})
			delete(want, k)
			b.want(ipvs.State{Ports: want})
		}
	}
}
