package ipvsnl_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
)

func TestKernelNodeAddresses(t *testing.T) {
	n := newNode(t)
	n.do(t, bind("10.96.0.0/16", netip.Addr{}))
	device, err := n.links.LinkByName(ipvsnl.DefaultDevice)
	must(t, err)
	must(t, n.links.AddrAdd(device, &netlink.Addr{IPNet: ipnet(netip.MustParseAddr("10.96.0.10"))}))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	must(t, n.links.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}))
	eth0, err := n.links.LinkByName("eth0")
	must(t, err)
	must(t, n.links.LinkSetUp(eth0)) // brings a link-local address
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		n.WatchAddresses(ctx, func() { changes <- struct{}{} })
	}()
	<-changes // it listens
	want := ipvstest.Sources()
	for _, a := range []string{"192.0.2.200", "2001:db8:1::200", "169.254.7.7"} {
		must(t, n.links.AddrAdd(eth0, &netlink.Addr{IPNet: ipnet(netip.MustParseAddr(a)), Flags: unix.IFA_F_NODAD}))
		want = append(want, netip.MustParseAddr(a))
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("no change seen after %s", a)
		}
	}
	slices.SortFunc(want, netip.Addr.Compare)
	must(t, n.links.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 7), Mask: net.CIDRMask(24, 32)}}))
	want = append(want, netip.MustParseAddr("198.51.100.7"))
	slices.SortFunc(want, netip.Addr.Compare)
	got, networks, err := n.NodeAddresses(t.Context())
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
	if !slices.Contains(networks, netip.MustParsePrefix("198.51.100.0/24")) || slices.ContainsFunc(networks, netip.Prefix.IsSingleIP) {
		t.Errorf("networks %v, want 198.51.100.0/24 and no single address", networks)
	}
	cancel()
	<-ended
}
