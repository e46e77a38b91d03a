package ipvsnl_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	libipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
)

// An established connection survives every edit, and the counts show it. The client's address is the source of the
// binding.
func TestKernelEditsKeepConnections(t *testing.T) {
	n := newNode(t)
	s := ipvstest.Sources()
	for i, vip := range []string{"10.96.0.10", "fd00:96::a"} {
		source, other := s[2*i], s[2*i+1]
		k := ipvs.Key{Addr: netip.MustParseAddr(vip), Port: 80, Proto: ipvs.TCP}
		r := ipvs.RealServer{Dest: echo(t, other), Weight: 1}
		p := netip.PrefixFrom(k.Addr, k.Addr.BitLen())
		n.do(t,
			ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: ipvs.Config{Scheduler: "rr"}},
			ipvs.Op{Verb: ipvs.AddReal, Key: k, Real: r},
			ipvs.Op{Verb: ipvs.Bind, Prefix: p, Source: source})
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(k.Addr, k.Port).String(), 10*time.Second)
		must(t, err)
		defer conn.Close()
		if got := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr(); got != source {
			t.Errorf("%s: the source is %s, want %s", k, got, source)
		}
		drained := r
		drained.Weight = 0
		for _, op := range []ipvs.Op{
			{Verb: ipvs.EditReal, Key: k, Real: drained},
			{Verb: ipvs.EditVirtual, Key: k, Config: ipvs.Config{Scheduler: "mh", Persistence: time.Minute, Flags: ipvs.FlagSched1}},
			{Verb: ipvs.AddVirtual, Key: k, Config: ipvs.Config{Scheduler: "wlc"}},
			{Verb: ipvs.AddReal, Key: k, Real: r},
			{Verb: ipvs.Bind, Prefix: p, Source: other},
			{Verb: ipvs.Bind, Prefix: p},
		} {
			n.do(t, op)
			must(t, exchange(conn))
			c, err := n.Conns(t.Context(), k)
			if err != nil || c[r.Dest].Active != 1 {
				t.Errorf("after %s: %v, %v", op, c, err)
			}
		}
	}
}

// A virtual server that is found by mark and remembers clients sends connections to the port that they asked for, whatever
// port the real server has (ip_vs_sched_persist in ip_vs_core.c). That is why affinity in the inside view of a Service is by
// a hash, and does not end. Should a kernel do better, this test tells.
func TestKernelMarkAffinityKeepsThePort(t *testing.T) {
	n := newNode(t)
	const mark, asked = 7, 80
	vip, source := netip.MustParseAddr("10.96.0.10"), ipvstest.Sources()[0]
	n.do(t, ipvs.Op{Verb: ipvs.Bind, Prefix: netip.PrefixFrom(vip, vip.BitLen()), Source: source})
	h, err := libipvs.New(n.path)
	must(t, err)
	defer h.Close()
	s := &libipvs.Service{AddressFamily: unix.AF_INET, FWMark: mark, SchedName: "rr", Netmask: 0xffffffff}
	must(t, h.NewService(s))
	real := echo(t, source)
	must(t, h.NewDestination(s, &libipvs.Destination{Address: real.Addr.AsSlice(), Port: real.Port, Weight: 1}))
	other, err := net.Listen("tcp", netip.AddrPortFrom(source, asked).String())
	must(t, err)
	defer other.Close()

	for _, persistent := range []bool{false, true} {
		if persistent {
			s.Flags, s.Timeout = 1, 60 // IP_VS_SVC_F_PERSISTENT
			must(t, h.UpdateService(s))
		}
		conn, err := dialMarked(netip.AddrPortFrom(vip, asked), mark)
		must(t, err)
		defer conn.Close()
		if !persistent {
			must(t, exchange(conn)) // the echo server answers
			continue
		}
		must(t, other.(*net.TCPListener).SetDeadline(time.Now().Add(10*time.Second)))
		accepted, err := other.Accept()
		must(t, err)
		_ = accepted.Close()
	}
}

// dialMarked connects with packets that bear a mark.
func dialMarked(to netip.AddrPort, mark int) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark)
		})
		return errors.Join(err, refused)
	}}
	return d.Dial("tcp", to.String())
}

// echo starts a TCP server that sends back what it gets.
func echo(t *testing.T, a netip.Addr) ipvs.Dest {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	at := netip.MustParseAddrPort(l.Addr().String())
	return ipvs.Dest{Addr: at.Addr(), Port: at.Port()}
}

func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hop")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 3))
	return err
}

// What others programmed and our values cannot express differs from everything wanted, and an edit repairs it.
func TestKernelForeignSettings(t *testing.T) {
	n := newNode(t)
	h, err := libipvs.New(n.path)
	must(t, err)
	defer h.Close()
	k := ipvs.Key{Addr: netip.MustParseAddr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	s := &libipvs.Service{
		AddressFamily: unix.AF_INET, Address: k.Addr.AsSlice(), Port: k.Port, Protocol: uint16(k.Proto),
		SchedName: "rr", Flags: 0x41, Timeout: 60, Netmask: 0xffffff, // persistent, and a flag that nobody knows
	}
	must(t, h.NewService(s))
	reals := []ipvs.RealServer{}
	for i, d := range []libipvs.Destination{
		{ConnectionFlags: libipvs.ConnectionFlagDirectRoute},
		{ConnectionFlags: libipvs.ConnectionFlagTunnel},
		{ConnectionFlags: libipvs.ConnectionFlagLocalNode},
		{UpperThreshold: 5},
		{UpperThreshold: 5, LowerThreshold: 2},
	} {
		a := netip.AddrFrom4([4]byte{10, 244, 0, byte(i + 1)})
		d.Address, d.Port, d.Weight = a.AsSlice(), 80, 1
		must(t, h.NewDestination(s, &d))
		reals = append(reals, ipvs.RealServer{Dest: ipvs.Dest{Addr: a, Port: 80}, Weight: ipvs.WeightForeign})
	}
	foreign := ipvs.Config{Scheduler: "rr", Persistence: time.Minute, Flags: ipvs.FlagForeign | 0x40}
	wantVirtual(t, n.Table, k, ipvs.VirtualServer{Config: foreign, Real: reals})
	want := ipvs.Config{Scheduler: "rr", Persistence: time.Minute}
	n.do(t, ipvs.Op{Verb: ipvs.EditVirtual, Key: k, Config: want})
	for i := range reals {
		reals[i].Weight = 1
		n.do(t, ipvs.Op{Verb: ipvs.EditReal, Key: k, Real: reals[i]})
	}
	wantVirtual(t, n.Table, k, ipvs.VirtualServer{Config: want, Real: reals})
}

// TestKernelOtherFamily: a real server of the other address family, which getsockopt leaves out, is seen as well.
func TestKernelOtherFamily(t *testing.T) {
	n := newNode(t)
	k := ipvs.Key{Addr: netip.MustParseAddr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	own := ipvs.RealServer{Dest: ipvs.Dest{Addr: netip.MustParseAddr("10.244.0.1"), Port: 8080}, Weight: 1}
	n.do(t, ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: ipvs.Config{Scheduler: "rr"}}, ipvs.Op{Verb: ipvs.AddReal, Key: k, Real: own})
	out, err := exec.CommandContext(t.Context(), "ipvsadm", "-a", "-t", k.String()[len("tcp "):], "-r", "[fd24::5]:80", "-i").CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm: %v: %s", err, out)
	}
	other := ipvs.RealServer{Dest: ipvs.Dest{Addr: netip.MustParseAddr("fd24::5"), Port: 80}, Weight: ipvs.WeightForeign}
	want := ipvs.VirtualServer{Config: ipvs.Config{Scheduler: "rr"}, Real: []ipvs.RealServer{own, other}}
	wantVirtual(t, n.Table, k, want)
	if got, err := n.Read(t.Context(), []ipvs.Key{k}); err != nil || !got[k].Equal(want) {
		t.Errorf("read %v, %v", got[k], err)
	}
}

func wantVirtual(t *testing.T, table *ipvsnl.Table, k ipvs.Key, want ipvs.VirtualServer) {
	t.Helper()
	s, err := table.Dump(t.Context())
	if err != nil || !s.Virtual[k].Equal(want) {
		t.Errorf("got %v, %v\nwant %v", s.Virtual[k], err, want)
	}
}
