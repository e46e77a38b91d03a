package iptexec

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/iptables"
)

// loopback sets lo up, with more addresses.
func loopback(t *testing.T, addrs ...netip.Addr) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		n := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: n, Flags: unix.IFA_F_NODAD}); err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatalf("%s: %v", a, err)
		}
	}
}

const discard = 9 // a port that nobody listens on

func dial(t *testing.T, from, to netip.Addr) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, discard)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// packets returns the counter of each rule of a chain.
func packets(t *testing.T, r *Rules, table, chain string) []int {
	t.Helper()
	out, err := exec.Command(r.tool.savePath, "-c", "-t", table).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var counts []int
	for line := range strings.Lines(string(out)) {
		if head, rule, ok := strings.Cut(line, "] -A "); ok && strings.HasPrefix(rule, chain+" ") {
			n, err := strconv.Atoi(strings.Split(head[1:], ":")[0])
			if err != nil {
				t.Fatal(err)
			}
			counts = append(counts, n)
		}
	}
	return counts
}

func mustApply(t *testing.T, r *Rules, want iptables.Ruleset) {
	t.Helper()
	if err := r.Apply(t.Context(), want); err != nil {
		t.Fatal(err)
	}
}

func same(f iptables.Family) (program string, base netip.Addr) {
	if f == iptables.IPv6 {
		return iptables.SameAddressIPv6, netip.MustParseAddr("2001:db8:1:2:3:4:5:6")
	}
	return iptables.SameAddressIPv4, netip.MustParseAddr("10.1.2.3")
}

// The programs must match a packet to its own sender, and none whose addresses differ in any one byte.
func TestKernelSameAddress(t *testing.T) {
	variants(t, func(t *testing.T, f iptables.Family, variant string) {
		r := open(t, f, variant)
		program, base := same(f)
		addrs := []netip.Addr{base}
		for i := range base.BitLen() / 8 {
			raw := base.AsSlice()
			raw[i] ^= 0x04
			a, _ := netip.AddrFromSlice(raw)
			addrs = append(addrs, a)
		}
		loopback(t, addrs...)
		mustApply(t, r, iptables.Ruleset{
			Family: f,
			Chains: []iptables.Chain{{Table: "filter", Name: "HOP", Rules: []iptables.Rule{
				iptables.Rule(`-p udp -m bpf --bytecode "` + program + `" -j RETURN`), "-p udp -j RETURN",
			}}},
			Jumps: []iptables.Jump{{Table: "filter", Chain: "OUTPUT", Rule: "-j HOP"}},
		})
		send := func(from, to netip.Addr) {
			if _, err := dial(t, from, to).Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		for _, a := range addrs {
			send(a, a)
			if a != base {
				send(a, base)
				send(base, a)
			}
		}
		n := len(addrs)
		if got := packets(t, r, "filter", "HOP"); got[0] != n || got[1] != 2*(n-1) {
			t.Errorf("%d packets with one address and %d with two were counted, want %d and %d", got[0], got[1], n, 2*(n-1))
		}
	})
}

// What is right already keeps its counters, even if something else in its table is repaired.
func TestKernelCountersStay(t *testing.T) {
	variants(t, func(t *testing.T, f iptables.Family, variant string) {
		r := open(t, f, variant)
		_, base := same(f)
		loopback(t, base)
		want := iptables.Ruleset{
			Family: f,
			Chains: []iptables.Chain{
				{Table: "filter", Name: "HOP", Rules: []iptables.Rule{"-p udp -j RETURN"}},
				{Table: "filter", Name: "HOP-OTHER", Rules: []iptables.Rule{"-j RETURN"}},
			},
			Jumps: []iptables.Jump{
				{Table: "filter", Chain: "OUTPUT", Rule: "-j HOP"}, {Table: "filter", Chain: "OUTPUT", Rule: "-j HOP-OTHER"},
			},
		}
		mustApply(t, r, want)
		c := dial(t, base, base)
		_, err := c.Write([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		stay := func(when string) {
			t.Helper()
			if got := packets(t, r, "filter", "HOP"); len(got) != 1 || got[0] != 1 {
				t.Errorf("%s: counters of HOP %v", when, got)
			}
			if got := packets(t, r, "filter", "OUTPUT"); len(got) < 1 || got[0] < 1 {
				t.Errorf("%s: counters of OUTPUT %v", when, got)
			}
		}
		stay("at first")
		mustApply(t, r, want)
		stay("applied again")
		want.Chains[1].Rules = []iptables.Rule{"-p tcp -j RETURN"}
		mustApply(t, r, want)
		stay("another chain changed")
		other{t, r.tool.name}.Delete("filter", "OUTPUT", "-j HOP-OTHER")
		mustApply(t, r, want)
		stay("another jump came back")
	})
}

// While chains are replaced and the jump moves, no packet finds a way past the rule that drops it.
func TestKernelNoGap(t *testing.T) {
	variants(t, func(t *testing.T, f iptables.Family, variant string) {
		r := open(t, f, variant)
		_, base := same(f)
		loopback(t, base)
		want := iptables.Ruleset{
			Family: f,
			Chains: []iptables.Chain{{Table: "filter", Name: "HOP", Rules: []iptables.Rule{"-p udp -j DROP"}}},
			Jumps:  []iptables.Jump{{Table: "filter", Chain: "OUTPUT", Rule: "-j HOP"}},
		}
		mustApply(t, r, want)
		conn := dial(t, base, base)
		var sent, passed atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				sent.Add(1)
				if _, err := conn.Write([]byte("x")); !errors.Is(err, unix.EPERM) { // what a dropped packet looks like here
					passed.Add(1)
				}
			}
		})
		o := other{t, r.tool.name}
		for range 5 {
			o.Insert("filter", "OUTPUT", 1, "-p tcp -j RETURN")
			mustApply(t, r, want)
			want.Chains[0].Rules = append([]iptables.Rule{"-p tcp -j RETURN"}, want.Chains[0].Rules...)
			mustApply(t, r, want)
		}
		cancel()
		wg.Wait()
		if passed.Load() > 0 || sent.Load() < 100 {
			t.Errorf("%d of %d packets passed", passed.Load(), sent.Load())
		}
	})
}
