package render

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/lb"
)

func TestLoopback(t *testing.T) {
	node := lb.Node{Addresses: parsed("192.168.50.11", "fd50::11")}
	local := parsed("10.9.9.9", "192.168.50.11", "fd50::11")
	for _, r := range []struct {
		about   string
		choice  NodePortAddresses
		local   []netip.Addr
		want    []netip.Addr
		without bool // the Node
	}{
		{about: "unset: everything", want: parsed("192.168.50.11", "fd50::11")},
		{about: "all", choice: selecting("0.0.0.0/0", "::/0"), want: parsed("192.168.50.11", "fd50::11")},
		{about: "primary selects no loopback", choice: NodePortAddresses{Primary: true}},
		{about: "primary of an unknown Node selects everything", choice: NodePortAddresses{Primary: true}, without: true, want: parsed("10.9.9.9", "fd50::11")},
		{about: "localhost", choice: selecting("127.0.0.0/8", "::1/128"), want: parsed("192.0.0.8", "100::8")},
		{about: "one family restricts only itself", choice: selecting("127.0.0.0/8"), want: parsed("192.0.0.8", "fd50::11")},
		{about: "other addresses only", choice: selecting("10.0.0.0/8", "fd00::/8")},
		{about: "other addresses beside", choice: selecting("10.0.0.0/8", "127.0.0.0/8", "fd00::/8"), want: parsed("10.9.9.9")},
		{about: "no address in a family", choice: selecting("127.0.0.0/8", "::1/128"), local: parsed("10.9.9.9"), want: parsed("192.0.0.8")},
	} {
		n, l := node, local
		if r.without {
			n = lb.Node{}
		}
		if r.local != nil {
			l = r.local
		}
		if got := r.choice.Loopback(l, n); fmt.Sprint(got) != fmt.Sprint(r.want) {
			t.Errorf("%s: %v, want %v", r.about, got, r.want)
		}
	}
}

func parsed(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func selecting(texts ...string) NodePortAddresses {
	var out NodePortAddresses
	for _, s := range texts {
		out.CIDRs = append(out.CIDRs, netip.MustParsePrefix(s))
	}
	return out
}
