package sockhook_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/loopback/loopbacktest"
	"github.com/kube-hop/kube-hop/loopback/sockhook"
)

// The node's addresses, on which the servers of the tests listen.
var (
	node4 = netip.MustParseAddr("192.0.2.1")
	node6 = netip.MustParseAddr("2001:db8::1")
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// namespace puts the test's goroutine into a network namespace of its own, which has the node's addresses. The thread
// is never unlocked: it ends with the test, and the namespace with it.
func namespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "network namespaces need root")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	for _, a := range []netip.Addr{node4, node6} {
		must(t, netlink.AddrAdd(lo, &netlink.Addr{
			IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD,
		}))
	}
	// The kernel makes an IPv6 address usable from a work queue; before that its route is not that of a local one.
	again, end := time.NewTicker(time.Millisecond), time.Now().Add(10*time.Second)
	defer again.Stop()
	for {
		routes, err := netlink.RouteGet(node6.AsSlice())
		if err == nil && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not usable: %v, %v", node6, routes, err)
		}
		<-again.C
	}
}

// lacking skips a test that the machine cannot run, unless REQUIRE_KERNEL says that it must be able to.
func lacking(t *testing.T, why any) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") != "" {
		t.Fatalf("REQUIRE_KERNEL is set, but %v", why)
	}
	t.Skipf("NOT TESTED ON A KERNEL, since %v", why)
}

func open(t *testing.T) *sockhook.Table {
	t.Helper()
	table, err := sockhook.Open(sockhook.Options{})
	if err != nil {
		lacking(t, err)
	}
	t.Cleanup(func() {
		if err := table.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		table.Close()
	})
	return table
}

// pins returns the folder of the pins of the goroutine's namespace.
func pins(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(t, err)
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	must(t, err)
	return fmt.Sprintf("/sys/fs/bpf/kube-hop/%d", cookie)
}

func TestKernel(t *testing.T) {
	loopbacktest.Conformance(t, func(t *testing.T) func() loopback.Table {
		namespace(t)
		return func() loopback.Table { return open(t) }
	})
}

// serving returns a table that leads the ports 30080 of both families and protocols to servers on the node's addresses.
func serving(t *testing.T) *sockhook.Table {
	t.Helper()
	namespace(t)
	table := open(t)
	_, err := table.Ensure(t.Context())
	must(t, err)
	for _, a := range []netip.Addr{node4, node6} {
		at := netip.AddrPortFrom(a, 30080)
		tcp(t, at)
		udp(t, at)
		apply(t, table, false, at)
	}
	return table
}

func apply(t *testing.T, table *sockhook.Table, remove bool, at netip.AddrPort) {
	t.Helper()
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		op := iptables.SetOp{Delete: remove, Set: loopback.SetName, Entry: loopbacktest.Entry(proto, at.String())}
		for _, err := range table.Apply(t.Context(), []iptables.SetOp{op}) {
			t.Error(err)
		}
	}
}

// Connections of both protocols and families are led, whatever loopback address they ask for; those of other ports, of
// sockets that are bound to loopback, and to other addresses, are not.
func TestKernelConnect(t *testing.T) {
	table := serving(t)
	tcp(t, netip.MustParseAddrPort("127.0.0.1:30081"))
	at4, at6 := "192.0.2.1:30080", "[2001:db8::1]:30080"
	check := func(network, from, to, want string) {
		t.Helper()
		if got := ask(network, from, to); got != want {
			t.Errorf("%s from %q to %s: %s, want %s", network, from, to, got, want)
		}
	}
	for _, network := range []string{"tcp", "udp"} {
		check(network, "", "127.0.0.1:30080", at4)
		check(network, "", "127.1.2.3:30080", at4)
		check(network, "192.0.2.1", "127.0.0.1:30080", at4)
		check(network, "", "[::1]:30080", at6)
		check(network, "2001:db8::1", "[::1]:30080", at6)
		check(network, "", at4, at4)
		check(network, "", at6, at6)
		check(network, "127.0.0.1", "127.0.0.1:30080", "refused")
		check(network, "::1", "[::1]:30080", "refused")
		check(network, "", "127.0.0.1:30082", "refused")
		check(network, "", "[::1]:30082", "refused")
	}
	check("tcp", "", "127.0.0.1:30081", "127.0.0.1:30081")
	op := iptables.SetOp{Set: loopback.SetName, Entry: loopbacktest.Entry(unix.IPPROTO_TCP, "192.0.2.1:30083")}
	if failed := table.Apply(t.Context(), []iptables.SetOp{op}); failed != nil {
		t.Error(failed)
	}
	udp(t, netip.MustParseAddrPort("192.0.2.1:30083"))
	check("udp", "", "127.0.0.1:30083", "refused") // TCP alone was added
	apply(t, table, true, netip.MustParseAddrPort(at4))
	check("tcp", "", "127.0.0.1:30080", "refused")
	check("udp", "", "127.0.0.1:30080", "refused")
	check("tcp", "", "[::1]:30080", at6)
}

// A socket of both families names IPv4 addresses in the IPv6 form.
func TestKernelMapped(t *testing.T) {
	serving(t)
	for _, to := range []string{"::ffff:127.0.0.1", "::1"} {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet6{Port: 30080, Addr: netip.MustParseAddr(to).As16()}); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// A UDP socket that is not connected gets its answers from the addresses that it sent to.
func TestKernelDatagrams(t *testing.T) {
	serving(t)
	for _, r := range []struct{ network, to, want string }{
		{"udp4", "127.0.0.1:30080", "192.0.2.1:30080"},
		{"udp4", "127.0.0.2:30080", "192.0.2.1:30080"},
		{"udp6", "[::1]:30080", "[2001:db8::1]:30080"},
		{"udp", "127.0.0.1:30080", "192.0.2.1:30080"}, // a socket of both families
		{"udp", "[::1]:30080", "[2001:db8::1]:30080"},
		{"udp", "192.0.2.1:30080", "192.0.2.1:30080"},
	} {
		c, err := net.ListenUDP(r.network, nil)
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		to := netip.MustParseAddrPort(r.to)
		for range 2 {
			_, err = c.WriteToUDPAddrPort([]byte("?"), to)
			must(t, err)
			buf := make([]byte, 100)
			n, from, err := c.ReadFromUDPAddrPort(buf)
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			if err != nil || string(buf[:n]) != r.want || from != to {
				t.Errorf("%s to %s: %q from %s (%v), want %q", r.network, r.to, buf[:n], from, err, r.want)
			}
		}
		_ = c.Close()
	}
}

// Sockets of other namespaces, such as those of pods, are left alone.
func TestKernelOtherNamespace(t *testing.T) {
	serving(t)
	namespace(t)
	if got := ask("tcp", "", "127.0.0.1:30080"); got != "refused" {
		t.Errorf("in another namespace: %s, want refused", got)
	}
	tcp(t, netip.MustParseAddrPort("127.0.0.1:30080"))
	if got := ask("tcp", "", "127.0.0.1:30080"); got != "127.0.0.1:30080" {
		t.Errorf("in another namespace: %s, want its own server", got)
	}
}

// A daemon that ends and the next one leave no moment without the hooks, and after Remove nothing is left.
func TestKernelTakeOver(t *testing.T) {
	table := serving(t)
	here, err := netns.Get()
	must(t, err)
	defer here.Close()
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked, as in namespace
		if err := netns.Set(here); err != nil {
			t.Error(err)
		}
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			if got := ask("tcp", "", "127.0.0.1:30080"); got != "192.0.2.1:30080" {
				t.Errorf("after %d answers: %s", n, got)
			}
			n++
		}
	}()
	for range 10 {
		table.Close()
		table = open(t)
		missing, err := table.Ensure(t.Context())
		if err != nil || len(missing) != 0 {
			t.Errorf("missing %v, %v; want nothing", missing, err)
		}
	}
	close(stop)
	if n := <-done; n == 0 {
		t.Error("no request was made meanwhile")
	}
	must(t, table.Remove(t.Context()))
	if got := ask("tcp", "", "127.0.0.1:30080"); got != "refused" {
		t.Errorf("after Remove: %s, want refused", got)
	}
	if left, err := os.ReadDir(pins(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove %s holds %v (%v)", pins(t), left, err)
	}
}

// What others took away is put back.
func TestKernelRepair(t *testing.T) {
	table := serving(t)
	folder := pins(t)
	detach := func(name string) {
		l, err := link.LoadPinnedLink(filepath.Join(folder, name), nil)
		must(t, err)
		must(t, l.Detach())
		must(t, l.Close())
	}
	for _, r := range []struct {
		what  string
		spoil func()
		want  []string
		empty bool
	}{
		{"a link is detached", func() { detach("connect4") }, []string{"hook connect4"}, false},
		{"a pin is removed", func() { must(t, os.Remove(filepath.Join(folder, "connect4"))) }, []string{"hook connect4"}, false},
		{"the ports are removed", func() { must(t, os.Remove(filepath.Join(folder, "ports"))) }, []string{"map ports"}, true},
		{"all is removed", func() { must(t, os.RemoveAll(folder)) }, []string{
			"map ports", "map flows", "hook connect4", "hook connect6", "hook sendmsg4", "hook sendmsg6", "hook recvmsg4", "hook recvmsg6",
		}, true},
	} {
		r.spoil()
		missing, err := table.Ensure(t.Context())
		if err != nil || fmt.Sprint(missing) != fmt.Sprint(r.want) {
			t.Errorf("%s: missing %v (%v), want %v", r.what, missing, err, r.want)
		}
		entries, err := table.Dump(t.Context())
		if err != nil || (len(entries) == 0) != r.empty {
			t.Errorf("%s: entries %v (%v); to be empty: %t", r.what, entries, err, r.empty)
		}
		for _, a := range []netip.Addr{node4, node6} {
			apply(t, table, false, netip.AddrPortFrom(a, 30080))
		}
		if got := ask("tcp", "", "127.0.0.1:30080"); got != "192.0.2.1:30080" {
			t.Errorf("%s: %s", r.what, got)
		}
	}
}

// Without what is needed the reason is told.
func TestKernelUnavailable(t *testing.T) {
	for _, o := range []sockhook.Options{{BPF: t.TempDir()}, {Cgroup: t.TempDir()}} {
		if _, err := sockhook.Open(o); !errors.Is(err, loopback.ErrUnavailable) {
			t.Errorf("%+v: %v, want ErrUnavailable", o, err)
		}
	}
}
