package ctnl_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/conntrack/conntracktest"
	"github.com/kube-hop/kube-hop/conntrack/ctnl"
	"github.com/kube-hop/kube-hop/lb"
)

// namespace puts the test into a network namespace of its own, whose thread ends with the test. It skips where that
// is not to be had, and fails where it is promised.
func namespace(tb testing.TB) {
	tb.Helper()
	runtime.LockOSThread() // never unlocked
	ns, err := netns.New()
	if err == nil {
		tb.Cleanup(func() { _ = ns.Close() })
		_, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	}
	switch {
	case err == nil:
	case os.Getenv("REQUIRE_KERNEL") != "":
		tb.Fatalf("REQUIRE_KERNEL is set, but there is no connection tracking: %v", err)
	default:
		tb.Skipf("NOT TESTED ON A KERNEL: %v", err)
	}
}

// add enters a flow whose answers go back to the client.
func add(tb testing.TB, f conntrack.Flow) {
	tb.Helper()
	if err := ctnl.Add(f); err != nil {
		tb.Fatalf("add %v: %v", f, err)
	}
}

// flows returns all entries of a family, all as answered: it does not know.
func flows(tb testing.TB, fam netlink.InetFamily) map[conntrack.Flow]bool {
	tb.Helper()
	list, err := netlink.ConntrackTableList(netlink.ConntrackTable, fam)
	if err != nil {
		tb.Fatal(err)
	}
	out := map[conntrack.Flow]bool{}
	at := func(ip net.IP, port uint16) netip.AddrPort {
		a, _ := netip.AddrFromSlice(ip)
		return netip.AddrPortFrom(a.Unmap(), port)
	}
	for _, f := range list {
		out[conntrack.Flow{
			Proto:  lb.Proto(f.Forward.Protocol),
			Client: at(f.Forward.SrcIP, f.Forward.SrcPort), Dst: at(f.Forward.DstIP, f.Forward.DstPort),
			Server: at(f.Reverse.SrcIP, f.Reverse.SrcPort),
		}] = true
	}
	return out
}

// counted counts the calls, so that the table is listed once after each and not for every entry that is asked for.
type counted struct {
	ctnl.Table

	calls int
}

// Expire implements conntrack.Table.
func (c *counted) Expire(ctx context.Context, cleanup conntrack.Cleanup) (int, error) {
	c.calls++
	return c.Table.Expire(ctx, cleanup)
}

func TestKernel(t *testing.T) {
	conntracktest.Conformance(t, func(t *testing.T) conntracktest.Env {
		t.Helper()
		namespace(t)
		table := &counted{}
		seen, known := -1, map[conntrack.Flow]bool{}
		return conntracktest.Env{
			Table: table,
			Add: func(t *testing.T, f conntrack.Flow) {
				t.Helper()
				add(t, f)
				f.Unanswered = false
				known[f] = true // looked for in the table after the next Expire
			},
			Has: func(t *testing.T, f conntrack.Flow) bool {
				t.Helper()
				if f.Proto == lb.SCTP { // the listing below knows no ports of it
					has, err := ctnl.Has(f)
					if err != nil {
						t.Fatal(err)
					}
					return has
				}
				if seen != table.calls && table.calls > 0 {
					seen, known = table.calls, flows(t, unix.AF_INET)
					for f := range flows(t, unix.AF_INET6) {
						known[f] = true
					}
				}
				f.Unanswered = false
				return known[f]
			},
		}
	})
}

// TestOtherProtocols: the same addresses and ports on TCP are another flow, which a cleanup of UDP does not touch.
func TestOtherProtocols(t *testing.T) {
	namespace(t)
	f := conntrack.Flow{
		Proto: lb.UDP, Client: netip.MustParseAddrPort("192.0.2.7:1000"), Dst: netip.MustParseAddrPort("10.96.0.53:53"),
		Server: netip.MustParseAddrPort("10.244.9.9:53"),
	}
	tcp := f
	tcp.Proto = lb.TCP
	add(t, tcp)
	add(t, f)
	for _, fs := range []conntrack.Frontends{
		{f.Dst: {}},
		many(f.Dst),
	} {
		if _, err := (ctnl.Table{}).Expire(t.Context(), conntrack.Cleanup{Frontends: fs}); err != nil {
			t.Fatal(err)
		}
		if !flows(t, unix.AF_INET)[tcp] {
			t.Fatal("the TCP entry is gone")
		}
		if flows(t, unix.AF_INET)[f] {
			t.Error("the UDP entry is still there")
		}
	}
}

// many returns so many frontends, all without real servers, that they are not filtered for.
func many(dst netip.AddrPort) conntrack.Frontends {
	fs := conntrack.Frontends{dst: {}}
	for i := range 100 {
		fs[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 97, 0, byte(i)}), 53)] = conntrack.Servers{}
	}
	return fs
}

// TestFullTable: with 200,000 entries a cleanup keeps none of those that are not stale in memory (P29).
func TestFullTable(t *testing.T) {
	namespace(t)
	const n = 200_000
	roomFor(t, n)
	if err := ctnl.Fill(n); err != nil {
		t.Fatal(err)
	}
	stale := conntrack.Flow{
		Proto: lb.UDP, Client: netip.MustParseAddrPort("192.0.2.7:1000"), Dst: netip.MustParseAddrPort("10.96.0.53:53"),
		Server: netip.MustParseAddrPort("10.244.9.9:53"),
	}
	for _, fs := range []conntrack.Frontends{
		{stale.Dst: {}},
		many(stale.Dst),
	} {
		add(t, stale)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		deleted, err := (ctnl.Table{}).Expire(t.Context(), conntrack.Cleanup{Frontends: fs})
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		if deleted != 1 || err != nil {
			t.Errorf("deleted %d entries, %v, want 1", deleted, err)
		}
		grown := int64(after.HeapSys) - int64(before.HeapSys)
		t.Logf("%d frontends, %d entries: %s, heap grown by %d kB", len(fs), n, took, grown>>10)
		if grown > 50<<20 {
			t.Errorf("the heap grew by %d MB", grown>>20)
		}
	}
}

// roomFor lets the table hold n entries and some. Only the machine's own namespace has the setting; other goroutines
// are in it.
func roomFor(t *testing.T, n int) {
	t.Helper()
	written := make(chan error)
	go func() {
		written <- os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_max", []byte(strconv.Itoa(2*n)), 0)
	}()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}
