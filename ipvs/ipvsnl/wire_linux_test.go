package ipvsnl

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// Values as moby/ipvs reads them from Linux 6.12.
func TestFromService(t *testing.T) {
	v4 := ipvs.Key{Addr: netip.MustParseAddr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	tests := []struct {
		name   string
		in     libipvs.Service
		key    ipvs.Key
		config ipvs.Config
		err    error
	}{
		{
			"plain",
			libipvs.Service{AddressFamily: unix.AF_INET, Address: net.IP{10, 96, 0, 10}, Port: 80, Protocol: 6, SchedName: "rr", Flags: flagHashed, Netmask: fullMask4},
			v4,
			ipvs.Config{Scheduler: "rr"},
			nil,
		},
		{
			"persistent",
			libipvs.Service{AddressFamily: unix.AF_INET, Address: net.IP{10, 96, 0, 10}, Port: 80, Protocol: 6, SchedName: "sh", Flags: 0x1f, Timeout: 10800, Netmask: fullMask4},
			v4,
			ipvs.Config{Scheduler: "sh", Persistence: 3 * time.Hour, Flags: ipvs.FlagOnePacket | ipvs.FlagSched1 | ipvs.FlagSched2},
			nil,
		},
		{
			"timeout without persistence means nothing",
			libipvs.Service{AddressFamily: unix.AF_INET, Address: net.IP{10, 96, 0, 10}, Port: 80, Protocol: 6, SchedName: "rr", Timeout: 60},
			v4,
			ipvs.Config{Scheduler: "rr"},
			nil,
		},
		{
			"persistent for networks",
			libipvs.Service{AddressFamily: unix.AF_INET, Address: net.IP{10, 96, 0, 10}, Port: 80, Protocol: 6, SchedName: "rr", Flags: 1, Timeout: 60, Netmask: 0xffffff},
			v4,
			ipvs.Config{Scheduler: "rr", Persistence: time.Minute, Flags: ipvs.FlagForeign},
			nil,
		},
		{
			"IPv6 mark",
			libipvs.Service{AddressFamily: unix.AF_INET6, FWMark: 7, SchedName: "rr", Flags: flagHashed, Netmask: fullMask6},
			ipvs.Key{Addr: netip.IPv6Unspecified(), Mark: 7},
			ipvs.Config{Scheduler: "rr"},
			nil,
		},
		{"family", libipvs.Service{AddressFamily: 17, FWMark: 7}, ipvs.Key{}, ipvs.Config{}, errWire},
		{"no address", libipvs.Service{AddressFamily: unix.AF_INET, Port: 80, Protocol: 6}, ipvs.Key{}, ipvs.Config{}, errWire},
		{"address of the other family", libipvs.Service{AddressFamily: unix.AF_INET6, Address: net.IP{10, 96, 0, 10}, Port: 80, Protocol: 6}, ipvs.Key{}, ipvs.Config{}, errWire},
	}
	for _, tt := range tests {
		k, c, err := fromService(&tt.in)
		if k != tt.key || c != tt.config || !errors.Is(err, tt.err) {
			t.Errorf("%s: %+v %+v, %v", tt.name, k, c, err)
		}
	}
}

func TestToldReal(t *testing.T) {
	dest := ipvs.Dest{Addr: netip.MustParseAddr("10.244.0.1"), Port: 80}
	for name, tt := range map[string]struct {
		in     toldReal
		weight int
	}{
		"masqueraded":               {toldReal{weight: 5, flags: libipvs.ConnectionFlagMasq}, 5},
		"no forwarding method":      {toldReal{weight: 5, flags: 0x0100}, 5}, // IP_VS_CONN_F_INACTIVE
		"tunnel":                    {toldReal{weight: 5, flags: libipvs.ConnectionFlagTunnel}, ipvs.WeightForeign},
		"direct route":              {toldReal{weight: 5, flags: libipvs.ConnectionFlagDirectRoute}, ipvs.WeightForeign},
		"upper threshold":           {toldReal{weight: 5, upper: 7}, ipvs.WeightForeign},
		"lower threshold":           {toldReal{weight: 5, lower: 7}, ipvs.WeightForeign},
		"weight that we never give": {toldReal{weight: 65536}, 65536},
		"negative weight":           {toldReal{weight: -7}, ipvs.WeightForeign},
	} {
		tt.in.dest = dest
		if r := tt.in.real(); r != (ipvs.RealServer{Dest: dest, Weight: tt.weight}) {
			t.Errorf("%s: %+v, want weight %d", name, r, tt.weight)
		}
	}
}

func TestFromRoute(t *testing.T) {
	r := localRoute(netip.MustParsePrefix("10.96.0.0/12"), netip.Addr{})
	for name, spoil := range map[string]func(*netlink.Route){
		"table":    func(r *netlink.Route) { r.Table = unix.RT_TABLE_MAIN },
		"type":     func(r *netlink.Route) { r.Type = unix.RTN_UNICAST },
		"protocol": func(r *netlink.Route) { r.Protocol = unix.RTPROT_KERNEL },
		"dst":      func(r *netlink.Route) { r.Dst = nil },
	} {
		foreign := r
		spoil(&foreign)
		if _, _, ok := fromRoute(&foreign); ok {
			t.Errorf("%s: a foreign route passes for ours", name)
		}
	}
}

// What the operations carry comes back from the wire structs as it was.
func FuzzWireRoundTrip(f *testing.F) {
	f.Add([]byte{10, 96, 0, 10}, uint16(80), uint8(6), uint32(0), "rr", uint32(0), uint32(0), []byte{10, 244, 0, 1}, 1, 12)
	f.Add(netip.MustParseAddr("fd00:96::a").AsSlice(), uint16(53), uint8(17), uint32(0), "mh", uint32(10800), uint32(0x3c), netip.MustParseAddr("fd00::5").AsSlice(), 0, 128)
	f.Add([]byte{0, 0, 0, 0}, uint16(0), uint8(0), uint32(7), "sh", uint32(60), uint32(8), []byte{10, 244, 0, 1}, 65535, 32)
	f.Fuzz(func(t *testing.T, addr []byte, port uint16, proto uint8, mark uint32, scheduler string, seconds, flags uint32, real []byte, weight, bits int) {
		a, _ := netip.AddrFromSlice(addr)
		s, _ := netip.AddrFromSlice(real)
		op := ipvs.Op{
			Verb:   ipvs.AddVirtual,
			Key:    ipvs.Key{Addr: a, Port: port, Proto: ipvs.Proto(proto), Mark: mark},
			Config: ipvs.Config{Scheduler: scheduler, Persistence: time.Duration(seconds) * time.Second, Flags: ipvs.Flags(flags)},
		}
		if op.Validate() == nil {
			roundTripService(t, op)
		}
		op.Verb, op.Real = ipvs.AddReal, ipvs.RealServer{Dest: ipvs.Dest{Addr: s, Port: port}, Weight: weight}
		if op.Validate() == nil {
			attrs := appendDest(nil, op.Real, true)[attrHeader:]
			if r, err := parseReal(attrs, ipvs.Key{Addr: op.Real.Addr}); r.real() != op.Real || err != nil {
				t.Errorf("%+v became %+v, %v", op.Real, r, err)
			}
		}
		op = ipvs.Op{Verb: ipvs.Bind, Source: s}
		if op.Prefix, _ = a.Prefix(bits); op.Validate() == nil {
			r := localRoute(op.Prefix, op.Source)
			if p, source, ok := fromRoute(&r); p != op.Prefix || source != op.Source || !ok {
				t.Errorf("%s source %s became %s source %s, %t", op.Prefix, op.Source, p, source, ok)
			}
		}
	})
}

// attrHeader is the size of the head of a nested attribute.
const attrHeader = 4

// What the kernel never sends is refused, or at least does no harm.
func FuzzParse(f *testing.F) {
	k := ipvs.Key{Addr: netip.MustParseAddr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	f.Add(appendService(nil, ipvs.Op{Key: k, Config: ipvs.Config{Scheduler: "rr"}}, true)[attrHeader:])
	f.Add(appendDest(nil, ipvs.RealServer{Dest: ipvs.Dest{Addr: netip.MustParseAddr("fd24::5"), Port: 80}, Weight: 1}, true)[attrHeader:])
	f.Fuzz(func(t *testing.T, attrs []byte) {
		if s, err := parseVirtual(attrs); err == nil {
			if k, _, err := fromService(&s); err == nil && k.Mark == 0 && !k.Addr.IsValid() {
				t.Errorf("%x became %+v", attrs, k)
			}
		}
		if r, err := parseReal(attrs, k); err == nil && !r.dest.Addr.IsValid() {
			t.Errorf("%x became %+v", attrs, r)
		}
	})
}

func roundTripService(t *testing.T, op ipvs.Op) {
	t.Helper()
	s, err := parseVirtual(appendService(nil, op, true)[attrHeader:])
	if err != nil {
		t.Error(err)
	}
	s.Flags |= flagHashed // as the kernel returns it
	if n := binary.Size(s.Netmask); n != 4 || s.Netmask == 0 {
		t.Errorf("netmask %#x", s.Netmask)
	}
	k, c, err := fromService(&s)
	if k != op.Key || c != op.Config || err != nil {
		t.Errorf("%+v %+v became %+v %+v, %v", op.Key, op.Config, k, c, err)
	}
}
