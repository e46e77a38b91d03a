package ipvsnl_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
)

// needKernel skips where IPVS is not to be had, and fails where it is promised: a skip must not go unnoticed there.
func needKernel(tb testing.TB) {
	tb.Helper()
	var reason string
	if os.Geteuid() != 0 {
		reason = "not root"
	} else if lacks := ipvsnl.Check(context.Background(), ipvsnl.CheckOptions{Schedulers: []string{"rr"}, IPv6: true}); len(lacks) > 0 {
		reason = lacks[0].What
	} else {
		return
	}
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		tb.Fatalf("REQUIRE_KERNEL=1, but: %s", reason)
	}
	tb.Skipf("NOT TESTED AGAINST A KERNEL: %s", reason)
}

// node is a fresh network namespace and a Table that works in it.
type node struct {
	*ipvsnl.Table

	links *netlink.Handle
	path  string // of the namespace, valid on this thread
}

// newNode makes a namespace with the addresses of ipvstest.Sources. The calling goroutine stays in it, on its thread.
func newNode(tb testing.TB) node {
	tb.Helper()
	needKernel(tb)
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and the namespace with it
	ns, err := netns.New()
	must(tb, err)
	tb.Cleanup(func() { _ = ns.Close() })
	path := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	links, err := netlink.NewHandleAt(ns)
	must(tb, err)
	tb.Cleanup(links.Close)
	lo, err := links.LinkByName("lo")
	must(tb, err)
	must(tb, links.LinkSetUp(lo))
	for _, a := range ipvstest.Sources() {
		must(tb, links.AddrAdd(lo, &netlink.Addr{IPNet: ipnet(a), Flags: unix.IFA_F_NODAD}))
	}
	// By path, so that the option is used; the sockets keep the namespace alive.
	table, err := ipvsnl.Open(ipvsnl.Options{Netns: path})
	must(tb, err)
	tb.Cleanup(table.Close)
	return node{table, links, path}
}

func ipnet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (n node) do(tb testing.TB, ops ...ipvs.Op) {
	tb.Helper()
	for _, err := range n.Apply(tb.Context(), ops) {
		tb.Error(err)
	}
}

// Where there is no IPVS, opening fails: moby/ipvs itself would go on, and every request would seem to succeed.
func TestOpenWithoutIPVS(t *testing.T) {
	if _, err := netlink.GenlFamilyGet("IPVS"); err == nil {
		t.Skip("this kernel has IPVS")
	}
	table, err := ipvsnl.Open(ipvsnl.Options{})
	if table != nil || !errors.Is(err, ipvsnl.ErrNoIPVS) {
		t.Errorf("%v, %v", table, err)
	}
	lacks := ipvsnl.Check(t.Context(), ipvsnl.CheckOptions{Schedulers: []string{"rr"}})
	t.Log(lacks)
	if !slices.ContainsFunc(lacks, func(l ipvsnl.Lack) bool { return l.What == ipvsnl.ErrNoIPVS.Error() }) {
		t.Errorf("%v", lacks)
	}
}

func TestKernelConformance(t *testing.T) {
	needKernel(t)
	ipvstest.Conformance(t, func(t *testing.T) ipvs.Table {
		t.Helper()
		return newNode(t)
	})
}

// Where getsockopt is not answered, netlink must say the same.
func TestKernelConformanceByNetlink(t *testing.T) {
	needKernel(t)
	ipvstest.Conformance(t, func(t *testing.T) ipvs.Table {
		t.Helper()
		n := newNode(t)
		if !n.HasOptions() {
			t.Fatal("this kernel does not answer getsockopt: both runs are the same")
		}
		n.WithoutOptions()
		return n
	})
}

// TestKernelManyReals: more virtual servers and real servers than there is room for at first, in both families.
func TestKernelManyReals(t *testing.T) {
	n := newNode(t)
	want := map[ipvs.Key]ipvs.VirtualServer{}
	var ops []ipvs.Op
	for i := range uint32(200) {
		for _, addr := range []netip.Addr{v4(i), v6(i)} {
			k := ipvs.Key{Addr: addr, Port: 80, Proto: ipvs.TCP}
			v := ipvs.VirtualServer{Config: ipvs.Config{Scheduler: "rr"}}
			ops = append(ops, ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: v.Config})
			for d := range []uint32{0, 1, 64, 65, 300}[i%5] {
				r := ipvs.RealServer{Dest: ipvs.Dest{Addr: v4(1000 + d), Port: 8080}, Weight: int(d)}
				if addr.Is6() {
					r.Addr = v6(1000 + d)
				}
				v.Real = append(v.Real, r)
				ops = append(ops, ipvs.Op{Verb: ipvs.AddReal, Key: k, Real: r})
			}
			want[k] = v
		}
	}
	n.do(t, ops...)
	for name, netlinkOnly := range map[string]bool{"both ways": false, "by netlink": true} {
		if netlinkOnly {
			n.WithoutOptions()
		}
		got, err := n.Dump(t.Context())
		if err != nil || len(got.Virtual) != len(want) {
			t.Fatalf("%s: %d virtual servers, %v, want %d", name, len(got.Virtual), err, len(want))
		}
		for k, v := range want {
			conns, err := n.Conns(t.Context(), k)
			if !got.Virtual[k].Equal(v) || len(conns) != len(v.Real) || err != nil {
				t.Errorf("%s, %s: got %v, connections of %d (%v)\nwant %v", name, k, got.Virtual[k], len(conns), err, v)
			}
		}
	}
}

func bind(prefix string, source netip.Addr) ipvs.Op {
	return ipvs.Op{Verb: ipvs.Bind, Prefix: netip.MustParsePrefix(prefix), Source: source}
}

// Binding an address that the node has, or comes to have, leaves the node's own route alone in both directions.
func TestKernelBindOwnAddress(t *testing.T) {
	n := newNode(t)
	lo, err := n.links.LinkByName("lo")
	must(t, err)
	for i, own := range []string{"192.0.2.1/32", "2001:db8:1::1/128", "192.0.2.77/32", "2001:db8:1::77/128"} {
		prefix := netip.MustParsePrefix(own)
		n.do(t, bind(own, netip.Addr{}))
		if i >= 2 {
			must(t, n.links.AddrAdd(lo, &netlink.Addr{IPNet: ipnet(prefix.Addr()), Flags: unix.IFA_F_NODAD}))
		}
		n.wantLocal(t, prefix.Addr(), "lo")
		n.do(t, ipvs.Op{Verb: ipvs.Unbind, Prefix: prefix})
		n.wantLocal(t, prefix.Addr(), "lo")
	}
}

// wantLocal waits until an address is local on a device: the kernel adds the route of a new IPv6 address some time
// after the address. What was removed by mistake does not come back by waiting.
func (n node) wantLocal(tb testing.TB, a netip.Addr, device string) {
	tb.Helper()
	got := n.deviceFor(tb, a)
	for tries := 0; got != device && tries < 200; tries++ {
		time.Sleep(10 * time.Millisecond)
		got = n.deviceFor(tb, a)
	}
	if got != device {
		tb.Errorf("%s is local on %q, want %s", a, got, device)
	}
}

// deviceFor returns the device of the first local route for an address: the one with the least metric.
func (n node) deviceFor(tb testing.TB, a netip.Addr) string {
	tb.Helper()
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := n.links.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	must(tb, err)
	routes = slices.DeleteFunc(routes, func(r netlink.Route) bool {
		return r.Dst == nil || r.Type != unix.RTN_LOCAL || r.Dst.String() != ipnet(a).String()
	})
	if len(routes) == 0 {
		return ""
	}
	least := slices.MinFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
	link, err := n.links.LinkByIndex(least.LinkIndex)
	must(tb, err)
	return link.Attrs().Name
}

// The device comes back after it was deleted or set down, and is quiet: it has no IPv6 link-local address.
func TestKernelDevice(t *testing.T) {
	n := newNode(t)
	must(t, n.DeleteDevice(t.Context()))
	ops := []ipvs.Op{bind("10.96.0.0/16", ipvstest.Sources()[0]), bind("fd00:96::/112", ipvstest.Sources()[2])}
	spoil := []struct {
		do   func(netlink.Link) error
		left int // prefixes that stay bound
	}{
		{func(netlink.Link) error { return nil }, 2},
		{n.links.LinkSetDown, 1}, // IPv6 only: addresses of a device that is down stay local in IPv4, and so do our prefixes
		{n.links.LinkDel, 0},
		{func(netlink.Link) error { return n.DeleteDevice(t.Context()) }, 0},
	}
	for i, s := range spoil {
		left := s.left
		n.do(t, ops...)
		if s, err := n.Dump(t.Context()); err != nil || len(s.Bound) != 2 {
			t.Errorf("round %d: bound %v, %v", i, s.Bound, err)
		}
		device, err := n.links.LinkByName(ipvsnl.DefaultDevice)
		must(t, err)
		addrs, err := n.links.AddrList(device, netlink.FAMILY_ALL)
		if device.Type() != "dummy" || device.Attrs().Flags&net.FlagUp == 0 || len(addrs) > 0 || err != nil {
			t.Errorf("round %d: device %+v, addresses %v, %v", i, device, addrs, err)
		}
		must(t, s.do(device))
		if s, err := n.Dump(t.Context()); err != nil || len(s.Bound) != left {
			t.Errorf("round %d, spoiled: bound %v, %v", i, s.Bound, err)
		}
	}
}

// A device of another type is neither used nor deleted.
func TestKernelDeviceOfAnotherType(t *testing.T) {
	n := newNode(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = ipvsnl.DefaultDevice
	must(t, n.links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}))
	errs := n.Apply(t.Context(), []ipvs.Op{bind("10.96.0.0/16", netip.Addr{})})
	if len(errs) != 1 || !errors.Is(errs[0], ipvsnl.ErrNotDummy) {
		t.Errorf("bind: %v", errs)
	}
	if err := n.DeleteDevice(t.Context()); !errors.Is(err, ipvsnl.ErrNotDummy) {
		t.Errorf("delete: %v", err)
	}
	if lacks := ipvsnl.Check(t.Context(), ipvsnl.CheckOptions{}); len(lacks) != 1 {
		t.Errorf("check: %v", lacks)
	}
}

// When a source stops being an address of the node, IPv4 goes on using it, and IPv6 forgets it. Both stay bound, and
// Dump tells the truth, so that the next comparison repairs them.
func TestKernelSourceVanishes(t *testing.T) {
	n := newNode(t)
	s := ipvstest.Sources()
	lo, err := n.links.LinkByName("lo")
	must(t, err)
	n.do(t, bind("10.96.0.0/16", s[0]), bind("fd00:96::/112", s[2]))
	must(t, n.links.AddrDel(lo, &netlink.Addr{IPNet: ipnet(s[0])}))
	must(t, n.links.AddrDel(lo, &netlink.Addr{IPNet: ipnet(s[2])}))
	state, err := n.Dump(t.Context())
	stale := map[netip.Prefix]netip.Addr{netip.MustParsePrefix("10.96.0.0/16"): s[0], netip.MustParsePrefix("fd00:96::/112"): {}}
	if err != nil || !maps.Equal(state.Bound, stale) {
		t.Errorf("got %v, %v\nwant %v", state.Bound, err, stale)
	}
	n.do(t, bind("10.96.0.0/16", s[1]), bind("fd00:96::/112", s[3]))
	state, err = n.Dump(t.Context())
	if err != nil || state.Bound[netip.MustParsePrefix("10.96.0.0/16")] != s[1] || state.Bound[netip.MustParsePrefix("fd00:96::/112")] != s[3] {
		t.Errorf("bound again: %v, %v", state.Bound, err)
	}
}

// What kube-proxy left on the device is not ours and no obstacle: not dumped, not removed.
func TestKernelForeignAddressesAndRoutes(t *testing.T) {
	n := newNode(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = ipvsnl.DefaultDevice
	must(t, n.links.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}))
	device, err := n.links.LinkByName(ipvsnl.DefaultDevice)
	must(t, err)
	must(t, n.links.LinkSetUp(device))
	vips := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")}
	for _, a := range vips {
		must(t, n.links.AddrAdd(device, &netlink.Addr{IPNet: ipnet(a), Flags: unix.IFA_F_NODAD}))
	}
	foreign := &netlink.Route{
		Dst: ipnet(netip.MustParseAddr("10.96.0.11")), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		LinkIndex: device.Attrs().Index, Scope: netlink.SCOPE_HOST, Protocol: 131, Priority: 5,
	}
	must(t, n.links.RouteAdd(foreign))
	if s, err := n.Dump(t.Context()); err != nil || len(s.Bound) != 0 {
		t.Errorf("%v, %v", s, err)
	}
	for _, p := range []string{"10.96.0.10/32", "10.96.0.11/32", "fd00:96::a/128"} {
		n.do(t, bind(p, netip.Addr{}))
		if s, err := n.Dump(t.Context()); err != nil || len(s.Bound) != 1 {
			t.Errorf("%s bound: %v, %v", p, s, err)
		}
		n.do(t, ipvs.Op{Verb: ipvs.Unbind, Prefix: netip.MustParsePrefix(p)})
		n.wantLocal(t, netip.MustParsePrefix(p).Addr(), ipvsnl.DefaultDevice)
	}
}

// TestKernelWatchBound: what others take away is told, what we take away ourselves is not.
func TestKernelWatchBound(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		n.WatchBound(ctx, func() { changes <- struct{}{} })
	}()
	<-changes // it listens
	expect := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Errorf("nothing was told after %s", what)
		}
	}
	v4, v6 := bind("10.96.0.0/16", netip.Addr{}), bind("fd96::1/128", netip.Addr{})
	n.do(t, v4, v6)
	for _, op := range []ipvs.Op{v4, v6} {
		n.do(t, op)
		routes, err := n.links.RouteListFiltered(family(op.Prefix), &netlink.Route{Table: unix.RT_TABLE_LOCAL, Protocol: ipvsnl.RouteProtocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		must(t, err)
		must(t, n.links.RouteDel(&routes[0]))
		expect("the route " + op.Prefix.String() + " was deleted")
	}
	// Ours is told from the deletion by others that follows it, whose message comes after it.
	n.do(t, v4, v6, ipvs.Op{Verb: ipvs.Unbind, Prefix: v4.Prefix})
	device, err := n.links.LinkByName(ipvsnl.DefaultDevice)
	must(t, err)
	must(t, n.links.LinkSetDown(device))
	expect("the device was set down")
	must(t, n.links.LinkDel(device))
	expect("the device was deleted")
	cancel()
	<-ended
	must(t, err)
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// The sysctls of the namespace can be set, and are then as wanted.
func TestKernelSysctls(t *testing.T) {
	newNode(t)
	changed, problems := ipvsnl.Sysctls(ipvsnl.SysctlOptions{IPv6: true})
	t.Log(changed)
	if len(changed) == 0 || len(problems) > 0 {
		t.Errorf("changed %v, problems %v", changed, problems)
	}
	if changed, problems = ipvsnl.Sysctls(ipvsnl.SysctlOptions{IPv6: true}); len(changed)+len(problems) > 0 {
		t.Errorf("once more: changed %v, problems %v", changed, problems)
	}
}

func TestKernelCheck(t *testing.T) {
	n := newNode(t)
	lacks := ipvsnl.Check(t.Context(), ipvsnl.CheckOptions{Schedulers: []string{"rr", "mh", "no-such"}, IPv6: true})
	if len(lacks) != 1 {
		t.Errorf("%v", lacks)
	}
	if s, err := n.Dump(t.Context()); err != nil || len(s.Virtual) > 0 {
		t.Errorf("left behind: %v, %v", s, err)
	}
	if _, err := n.links.LinkByName("kube-ipvs-try"); err == nil {
		t.Error("the trial device is left behind")
	}
}

// TestEnsureTimeouts: what is wished for is there the next time it is looked at, and looking again changes nothing.
func TestEnsureTimeouts(t *testing.T) {
	n := newNode(t)
	wish := ipvsnl.Timeouts{TrackTCP: 3600 * time.Second, TCPFin: 11 * time.Second, UDP: 222 * time.Second}
	changes, problems := n.EnsureTimeouts(t.Context(), wish, "")
	if len(problems) > 0 || len(changes) == 0 {
		t.Fatalf("changed %v, problems %v", changes, problems)
	}
	if changes, problems := n.EnsureTimeouts(t.Context(), wish, ""); len(changes)+len(problems) > 0 {
		t.Errorf("the second time changed %v, problems %v", changes, problems)
	}
	changes, _ = n.EnsureTimeouts(t.Context(), ipvsnl.Timeouts{TCP: 20 * time.Second}, "")
	if got := fmt.Sprint(changes); got != "[IPVS timeouts: 3600 11 222 -> 20 11 222]" {
		t.Errorf("changed %s", got)
	}
}

// TestKernelMissed: what a listing of virtual servers passed over is found all the same.
func TestKernelMissed(t *testing.T) {
	n := newNode(t)
	h, err := libipvs.New(n.path)
	must(t, err)
	defer h.Close()
	for i := range uint32(100) {
		k := ipvs.Key{Addr: v6(i), Port: 80, Proto: ipvs.TCP}
		n.do(t, ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: ipvs.Config{Scheduler: "rr"}})
	}
	pointers, err := h.GetServices()
	must(t, err)
	var all []libipvs.Service
	for _, s := range pointers {
		all = append(all, *s)
	}
	if got := ipvsnl.Union(slices.Clone(all[1:]), slices.Clone(all[:99])); len(all) != 100 || got != 100 {
		t.Errorf("of %d that are listed %d are found", len(all), got)
	}
}
