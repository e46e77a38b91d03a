package testbed

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Inject sends a TCP segment with a byte of data and sequence numbers that belong to no window, from one of the host's
// own addresses: connection tracking calls it invalid if from and to have a connection.
func (h *Host) Inject(from, to netip.AddrPort) error {
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
			return fmt.Errorf("raw socket on %s: %w", h.Name, err)
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
