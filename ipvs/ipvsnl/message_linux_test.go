package ipvsnl

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
)

// TestRequests spells requests out, as linux/ip_vs.h and linux/netlink.h have them (little-endian).
func TestRequests(t *testing.T) {
	key := ipvs.Key{Addr: netip.MustParseAddr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	key6 := ipvs.Key{Addr: netip.MustParseAddr("fd96::10"), Port: 53, Proto: ipvs.UDP}
	config := ipvs.Config{Scheduler: "rr", Persistence: time.Hour, Flags: ipvs.FlagSched1}
	real4 := ipvs.RealServer{Dest: ipvs.Dest{Addr: netip.MustParseAddr("10.244.1.5"), Port: 8080}, Weight: 3}
	real6 := ipvs.RealServer{Dest: ipvs.Dest{Addr: netip.MustParseAddr("fd24::5"), Port: 8053}, Weight: 1}
	head := func(length, cmd string) string {
		return length + "000000" + "2200" + "0100" + "07000000" + "00000000" + cmd + "010000"
	}
	const service4 = "06000100020000000600020006000000080003000a60000a0600040000500000"
	for _, tt := range []struct {
		op   ipvs.Op
		want string
	}{
		{
			ipvs.Op{Verb: ipvs.AddVirtual, Key: key, Config: config},
			head("5c", "01") + "48000180" + "0600010002000000" + "0600020006000000" + "080003000a60000a" + "0600040000500000" +
				"0700060072720000" + "0c00070009000000ffffffff" + "08000800100e0000" + "08000900ffffffff",
		},
		{
			ipvs.Op{Verb: ipvs.EditVirtual, Key: ipvs.Key{Addr: netip.IPv4Unspecified(), Mark: 7}, Config: ipvs.Config{Scheduler: "wlc"}},
			head("4c", "02") + "38000180" + "0600010002000000" + "0800050007000000" +
				"08000600776c6300" + "0c00070000000000ffffffff" + "0800080000000000" + "08000900ffffffff",
		},
		{ipvs.Op{Verb: ipvs.DeleteVirtual, Key: key, Config: config}, head("38", "03") + "24000180" + service4},
		{
			ipvs.Op{Verb: ipvs.AddReal, Key: key, Real: real4},
			head("6c", "05") + "24000180" + service4 + "34000280" + "080001000af40105" + "060002001f900000" +
				"0800030000000000" + "0800040003000000" + "0800050000000000" + "0800060000000000",
		},
		{
			ipvs.Op{Verb: ipvs.DeleteReal, Key: key6, Real: real6},
			head("64", "07") + "30000180" + "060001000a000000" + "0600020011000000" + "14000300fd960000000000000000000000000010" + "0600040000350000" +
				"20000280" + "14000100fd240000000000000000000000000005" + "060002001f750000",
		},
	} {
		want, err := hex.DecodeString(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendRequest([]byte{1, 2, 3, 4}, 0x22, 7, tt.op)[4:]; !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", tt.op, got, want)
		}
	}
}

// TestBatchable: one operation that is no request on a virtual or real server, or is not valid, ends the batch.
func TestBatchable(t *testing.T) {
	key := ipvs.Key{Addr: netip.MustParseAddr("10.96.0.10"), Port: 80, Proto: ipvs.TCP}
	good := ipvs.Op{Verb: ipvs.DeleteReal, Key: key, Real: ipvs.RealServer{Dest: ipvs.Dest{Addr: key.Addr, Port: 1}}}
	add := ipvs.Op{Verb: ipvs.AddVirtual, Key: key, Config: ipvs.Config{Scheduler: "rr"}}
	other := ipvs.Op{Verb: ipvs.DeleteVirtual, Key: ipvs.Key{Addr: key.Addr, Port: 81, Proto: ipvs.TCP}}
	for _, tt := range []struct {
		ops  []ipvs.Op
		want int
	}{
		{nil, 0},
		{[]ipvs.Op{good, good}, 2},
		{[]ipvs.Op{good, {Verb: ipvs.Unbind, Prefix: netip.MustParsePrefix("10.96.0.0/16")}, good}, 1},
		{[]ipvs.Op{good, {Verb: ipvs.AddVirtual, Key: key}, good}, 1}, // it names no scheduler
		{[]ipvs.Op{{}}, 0},
		{[]ipvs.Op{add, good, good, other}, 4},
		{[]ipvs.Op{good, add}, 1},
		{[]ipvs.Op{add, other, add, other}, 2},
	} {
		if got := batchable(tt.ops); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.ops, got, tt.want)
		}
	}
}
