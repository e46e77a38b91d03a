//go:build e2e && linux

package suite

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestInvalidSegments: a segment far outside of the window, which connection tracking calls invalid and does not
// translate, is answered by a reset from nobody, in either direction, and the connection goes on (P32).
func TestInvalidSegments(t *testing.T) {
	c := shared(t)
	m := newService("invalid", 171, c.B1)
	c.apply(t, m)
	for _, f := range m.frontends(c.N1) {
		if f.kind == clusterIP {
			continue
		}
		t.Run(f.String(), func(t *testing.T) {
			s, err := c.Out.Dial(t.Context(), testbed.TCP, f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			server := netip.AddrPortFrom(c.B1.Addr(f.addr.Addr()), podPort)
			resets, err := c.B1.Sniff(t.Context(), "eth0", func(p testbed.Packet) bool { return p.Reset })
			if err != nil {
				t.Fatal(err)
			}
			if err := inject(c.B1, server, s.Answer.Peer); err != nil {
				t.Fatal(err)
			}
			if err := inject(c.Out, s.Local(), f.addr); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := s.Ping(); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := resets.Count(); n != 0 || err != nil {
				t.Errorf("%d resets, %v, want none", n, err)
			}
		})
	}
}

// inject sends a TCP segment with a byte of data and numbers that belong to no window, from a host's own address.
func inject(h *testbed.Host, from, to netip.AddrPort) error {
	segment := make([]byte, 21)
	binary.BigEndian.PutUint16(segment[0:], from.Port())
	binary.BigEndian.PutUint16(segment[2:], to.Port())
	binary.BigEndian.PutUint32(segment[4:], 0x12345678)
	binary.BigEndian.PutUint32(segment[8:], 0x9abcdef0)
	segment[12], segment[13] = 5<<4, 1<<4 // five words of header; ACK
	binary.BigEndian.PutUint16(segment[14:], 512)
	binary.BigEndian.PutUint16(segment[16:], checksum(from, to, segment))
	return h.Do(func() error {
		family, dst := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16()})
		if to.Addr().Is4() {
			family, dst = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return fmt.Errorf("raw socket on %s: %w", h, err)
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, segment, 0, dst)
	})
}

// checksum is that of RFC 9293, section 3.1, over the pseudo header and a segment whose own field is zero.
func checksum(from, to netip.AddrPort, segment []byte) uint16 {
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	sum := uint32(0)
	for _, part := range [][]byte{pseudo, segment} {
		for i, b := range part {
			sum += uint32(b) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
