package conntrack_test

import (
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/lb"
)

func TestStale(t *testing.T) {
	at := netip.MustParseAddrPort
	fs := conntrack.Cleanup{Frontends: conntrack.Frontends{
		at("10.96.0.53:53"):       {Live: []netip.AddrPort{at("10.244.1.5:53"), at("10.244.2.5:5353")}},
		at("192.0.2.11:30053"):    {},
		at("203.0.113.1:53"):      {Gone: true},
		at("[fd96::53]:53"):       {Live: []netip.AddrPort{at("[fd24::5]:53")}},
		at("10.96.0.54:53"):       {Live: []netip.AddrPort{at("10.96.0.54:53")}}, // nonsense, but ours
		at("198.51.100.9:30053"):  {Gone: true},
		at("198.51.100.10:30053"): {Gone: true, Live: []netip.AddrPort{at("10.244.1.5:53")}},
	}, Added: map[netip.AddrPort]struct{}{at("[fd24::7]:53"): {}}}
	for _, tc := range []struct {
		name, dst, server string
		stale             bool
	}{
		{"live", "10.96.0.53:53", "10.244.1.5:53", false},
		{"last of the live", "10.96.0.53:53", "10.244.2.5:5353", false},
		{"removed server", "10.96.0.53:53", "10.244.3.5:53", true},
		{"port of the server changed", "10.96.0.53:53", "10.244.2.5:53", true},
		{"older than the frontend", "10.96.0.53:53", "10.96.0.53:53", true},
		{"other port of the address", "10.96.0.53:54", "10.244.3.5:53", false},
		{"node port without servers", "192.0.2.11:30053", "10.244.1.5:53", true},
		{"same port elsewhere", "192.0.2.99:30053", "192.0.2.99:30053", false},
		{"gone frontend", "203.0.113.1:53", "10.244.1.5:53", true},
		{"gone frontend, not translated", "203.0.113.1:53", "203.0.113.1:53", false},
		{"gone frontend has no live servers", "198.51.100.10:30053", "10.244.1.5:53", true},
		{"IPv6 live", "[fd96::53]:53", "[fd24::5]:53", false},
		{"IPv6 removed", "[fd96::53]:53", "[fd24::6]:53", true},
	} {
		f := conntrack.Flow{Proto: lb.UDP, Client: at("192.0.2.7:4711"), Dst: at(tc.dst), Server: at(tc.server)}
		if got := fs.Stale(f); got != tc.stale {
			t.Errorf("%s: stale is %t, want %t", tc.name, got, tc.stale)
		}
	}
	v4, v6 := fs.OfFamily(false), fs.OfFamily(true)
	if n4, n6 := len(v4.Frontends), len(v6.Frontends); n4 != 6 || n6 != 1 || len(v4.Added) != 0 || len(v6.Added) != 1 {
		t.Errorf("%d IPv4 and %d IPv6 frontends, want 6 and 1; added servers %v and %v", n4, n6, v4.Added, v6.Added)
	}
	if v4.Empty() || v6.Empty() || !(conntrack.Cleanup{}).Empty() {
		t.Error("which cleanups are empty is wrong")
	}
}
