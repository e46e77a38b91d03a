package ctnl

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/lb"
)

// message returns a flow and what the kernel is sent to enter it, behind both headers.
func message() (conntrack.Flow, []byte) {
	f := conntrack.Flow{
		Proto:  lb.UDP,
		Client: netip.MustParseAddrPort("192.0.2.7:1000"), Dst: netip.MustParseAddrPort("10.96.0.53:53"),
		Server: netip.MustParseAddrPort("10.96.0.53:53"),
	}
	return f, creation(f).Serialize()[20:]
}

// TestParseEntry reads what the kernel sends for a flow: nested attributes, of which those that name the entry are
// kept as they are.
func TestParseEntry(t *testing.T) {
	want, msg := message()
	zone, id := appendAttr(nil, nl.CTA_ZONE, []byte{0, 7}), appendAttr(nil, nl.CTA_ID, []byte{1, 2, 3, 4})
	e, ok := parseEntry(append(append(bytes.Clone(msg), zone...), id...))
	if !ok || e.flow != want {
		t.Errorf("parsed as %v, %t, want %v", e.flow, ok, want)
	}
	if !bytes.HasPrefix(msg, e.name[:len(e.name)-len(zone)-len(id)]) || !bytes.HasSuffix(e.name, append(zone, id...)) {
		t.Errorf("the entry is named by %x, want the original tuple, zone and identifier", e.name)
	}
}

// FuzzParseEntry: whatever the kernel sends, nothing panics, and what is cut short is not taken for a flow.
func FuzzParseEntry(f *testing.F) {
	_, msg := message()
	for i := range msg {
		f.Add(msg[:i])
	}
	f.Add(filter(wanted{proto: lb.TCP, at: netip.MustParseAddrPort("[fd96::53]:53"), unanswered: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := parseEntry(b); ok && !e.flow.Dst.IsValid() {
			t.Errorf("%x has no destination, but was taken for a flow", b)
		}
	})
}
