package ipsetnl

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
)

// networks returns operations that add n networks of different lengths.
func networks(set string, n int) []iptables.SetOp {
	ops := make([]iptables.SetOp, 0, n)
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
		ops = append(ops, iptables.SetOp{Set: set, Entry: iptables.Entry{Prefix: netip.PrefixFrom(addr, 24+i%8)}})
	}
	return ops
}

// randomEntry returns an entry that passes its Check, of any type and family.
func randomEntry(r *rand.Rand) iptables.Entry {
	v6 := r.IntN(2) == 1
	prefix := func(bits int) netip.Prefix {
		var raw [16]byte
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		raw[0] = 0x20 // not an IPv4 address in IPv6 form
		addr := netip.AddrFrom16(raw)
		if !v6 {
			addr = netip.AddrFrom4([4]byte(raw[:4]))
		}
		if bits == 0 {
			bits = addr.BitLen()
		}
		return netip.PrefixFrom(addr, bits).Masked()
	}
	length := func() int { return 1 + r.IntN(map[bool]int{false: 32, true: 128}[v6]) }
	e := iptables.Entry{Prefix: prefix(0), Proto: []uint8{6, 17, 132}[r.IntN(3)], Port: uint16(r.Uint32())}
	switch r.IntN(3) {
	case 0:
		return iptables.Entry{Prefix: prefix(length())}
	case 1:
		e.Net = prefix(length())
	}
	return e
}

func FuzzEntryRoundTrip(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed, uint32(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, line uint32) {
		want := randomEntry(rand.New(rand.NewPCG(seed, 0)))
		if err := want.Check(); err != nil {
			t.Fatal(err)
		}
		got, err := parseEntries(appendEntry(nil, want, line))
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s came back as %v, %v", want, got, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(createMessage(iptables.Set{Name: "S", Type: iptables.HashNet, Family: iptables.IPv4, MaxElem: 7}))
	f.Add(batchMessage("S", networks("S", 3)))
	f.Add([]byte{4, 0, 7, 0x80, 3, 0, 0, 0})
	f.Add(recordedListing)
	f.Fuzz(func(_ *testing.T, b []byte) { // must not panic, nor loop
		_, _ = parseSet(b)
		_, _ = parseEntry(b)
		_ = parseFailure(b)
		_ = failedLine(b)
		c := conn{seq: 0}
		if len(b) >= 16 {
			_, _ = c.message(b, func([]byte) error { return nil })
		}
	})
}

func TestCreateMessageParses(t *testing.T) {
	want := iptables.Set{Name: "S", Type: iptables.HashIPPortNet, Family: iptables.IPv6, MaxElem: 12345}
	got, err := parseSet(createMessage(want))
	if err != nil || got.set != want {
		t.Errorf("%+v came back as %+v, %v", want, got.set, err)
	}
}

func TestParseRecordedListing(t *testing.T) {
	m, err := parseSet(recordedListing)
	want := iptables.Set{Name: "R", Type: iptables.HashIPPortNet, Family: iptables.IPv4, MaxElem: 99}
	if err != nil || m.set != want || len(m.entries) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	if got := m.entries[0].String(); got != "10.96.0.10,udp:53,192.168.0.0/16" {
		t.Errorf("entry %s", got)
	}
}

func TestNextBatch(t *testing.T) {
	ops := networks("S", 2*maxBatch)
	if n := nextBatch(ops); n != maxBatch {
		t.Errorf("long list: %d", n)
	}
	if n := len(batchMessage("S", ops[:maxBatch])); n > 64<<10 {
		t.Errorf("a message of %d bytes does not fit an attribute", n)
	}
	for name, spoil := range map[string]func(*iptables.SetOp){
		"other set":   func(op *iptables.SetOp) { op.Set = "T" },
		"other verb":  func(op *iptables.SetOp) { op.Delete = true },
		"bad entry":   func(op *iptables.SetOp) { op.Entry = iptables.Entry{} },
		"other entry": func(op *iptables.SetOp) { op.Entry.Prefix = netip.MustParsePrefix("0.0.0.0/0") },
	} {
		ops := networks("S", 10)
		spoil(&ops[4])
		if n := nextBatch(ops); n != 4 {
			t.Errorf("%s: %d", name, n)
		}
	}
}

func TestHashSize(t *testing.T) {
	for in, want := range map[uint32]uint32{0: 64, 64: 64, 65: 128, 600: 1024, 1 << 20: 1024, 1<<32 - 1: 1024} {
		if got := hashSize(in); got != want {
			t.Errorf("hashSize(%d) = %d, want %d", in, got, want)
		}
	}
}

func TestErrno(t *testing.T) {
	err := error(&requestError{errno: errHashFull})
	if !errors.Is(err, iptables.ErrSetFull) || errors.Is(err, iptables.ErrNoSet) {
		t.Errorf("%v", err)
	}
	if err := error(Errno(syscall.EPERM)); !errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Errorf("%v", err)
	}
}
