package iptables

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// runBPF runs the few instructions that the programs are made of. Source: linux/filter.h.
func runBPF(t *testing.T, program string, packet []byte) bool {
	t.Helper()
	var a, x uint32
	ins := strings.Split(program, ",")
	if ins[0] != fmt.Sprint(len(ins)-1) {
		t.Fatalf("%s instructions announced, %d there", ins[0], len(ins)-1)
	}
	for pc := 1; pc < len(ins); pc++ {
		var code, jt, jf int
		var k uint32
		if _, err := fmt.Sscanf(ins[pc], "%d %d %d %d", &code, &jt, &jf, &k); err != nil {
			t.Fatal(err)
		}
		switch code {
		case 32: // ld [k]
			a = binary.BigEndian.Uint32(packet[k:])
		case 7: // tax
			x = a
		case 29: // jeq x
			if a == x {
				pc += jt
			} else {
				pc += jf
			}
		case 6: // ret #k
			return k != 0
		default:
			t.Fatalf("instruction %d", code)
		}
	}
	t.Fatal("ran over the end")
	return false
}

// Words of few values make addresses that agree in part, across source and destination and within each: a jump to
// a wrong place shows only then, and the packets of the kernel test do not cover it.
func TestSameAddress(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	for _, p := range []struct {
		program   string
		at, words int
	}{{SameAddressIPv4, 12, 1}, {SameAddressIPv6, 8, 4}} {
		for range 20000 {
			packet := make([]byte, 40)
			for i := range 2 * p.words {
				binary.BigEndian.PutUint32(packet[p.at+4*i:], r.Uint32N(2))
			}
			src, dst := packet[p.at:p.at+4*p.words], packet[p.at+4*p.words:p.at+8*p.words]
			if got := runBPF(t, p.program, packet); got != (string(src) == string(dst)) {
				t.Fatalf("%x to %x: match %v", src, dst, got)
			}
		}
	}
}
