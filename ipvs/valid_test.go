package ipvs_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
)

func TestValidate(t *testing.T) {
	addr := netip.MustParseAddr
	key := ipvs.Key{Addr: addr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	rr := ipvs.Config{Scheduler: "rr"}
	virtual := func(k ipvs.Key, c ipvs.Config) ipvs.Op { return ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: c} }
	server := func(a string, weight int) ipvs.Op {
		return ipvs.Op{Verb: ipvs.AddReal, Key: key, Real: ipvs.RealServer{Dest: ipvs.Dest{Addr: addr(a), Port: 80}, Weight: weight}}
	}
	bind := func(p, source string) ipvs.Op {
		op := ipvs.Op{Verb: ipvs.Bind, Prefix: netip.MustParsePrefix(p)}
		if source != "" {
			op.Source = addr(source)
		}
		return op
	}
	tests := []struct {
		name string
		op   ipvs.Op
		ok   bool
	}{
		{"virtual server", virtual(key, rr), true},
		{"mark", virtual(ipvs.Key{Addr: netip.IPv6Unspecified(), Mark: 7}, rr), true},
		{"all flags", virtual(key, ipvs.Config{Scheduler: "mh", Persistence: ipvs.MaxPersistence, Flags: ipvs.FlagsAll}), true},
		{"mark with address", virtual(ipvs.Key{Addr: key.Addr, Mark: 7}, rr), false},
		{"mark with port", virtual(ipvs.Key{Addr: netip.IPv4Unspecified(), Port: 1, Mark: 7}, rr), false},
		{"no address", virtual(ipvs.Key{Port: 80, Proto: ipvs.TCP}, rr), false},
		{"mapped address", virtual(ipvs.Key{Addr: addr("::ffff:10.0.0.1"), Port: 80, Proto: ipvs.TCP}, rr), false},
		{"zone", virtual(ipvs.Key{Addr: addr("fe80::1%eth0"), Port: 80, Proto: ipvs.TCP}, rr), false},
		{"protocol", virtual(ipvs.Key{Addr: key.Addr, Port: 80, Proto: 1}, rr), false},
		{"no scheduler", virtual(key, ipvs.Config{}), false},
		{"long scheduler", virtual(key, ipvs.Config{Scheduler: "0123456789abcdef"}), false},
		{"part of a second", virtual(key, ipvs.Config{Scheduler: "rr", Persistence: time.Millisecond}), false},
		{"negative persistence", virtual(key, ipvs.Config{Scheduler: "rr", Persistence: -time.Second}), false},
		{"long persistence", virtual(key, ipvs.Config{Scheduler: "rr", Persistence: ipvs.MaxPersistence + time.Second}), false},
		{"foreign flag", virtual(key, ipvs.Config{Scheduler: "rr", Flags: ipvs.FlagForeign}), false},
		{"weight 0", server("10.244.1.5", 0), true},
		{"largest weight", server("10.244.1.5", ipvs.MaxWeight), true},
		{"weight too large", server("10.244.1.5", ipvs.MaxWeight+1), false},
		{"foreign weight", server("10.244.1.5", ipvs.WeightForeign), false},
		{"other family", server("fd00::5", 1), false},
		{"delete ignores the weight", ipvs.Op{Verb: ipvs.DeleteReal, Key: key, Real: server("10.244.1.5", -1).Real}, true},
		{"bind", bind("10.96.0.0/12", "192.0.2.1"), true},
		{"bind without source", bind("fd00::/112", ""), true},
		{"host bits", bind("10.96.0.1/12", ""), false},
		{"everything", bind("0.0.0.0/0", ""), false},
		{"source of the other family", bind("10.96.0.0/12", "fd00::1"), false},
		{"unspecified source", bind("10.96.0.0/12", "0.0.0.0"), false},
		{"unbind nothing", ipvs.Op{Verb: ipvs.Unbind}, false},
		{"no verb", ipvs.Op{}, false},
	}
	for _, tt := range tests {
		err := tt.op.Validate()
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && !errors.Is(err, ipvs.ErrInvalid) {
			t.Errorf("%s: %v is not ErrInvalid", tt.name, err)
		}
	}
}
