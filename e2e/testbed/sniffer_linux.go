package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sniffer counts packets on one interface.
type Sniffer struct {
	host   *Host
	file   *os.File
	raw    syscall.RawConn
	filter func(Packet) bool
	done   chan struct{}

	mu    sync.Mutex
	count int
	lost  int
	buf   []byte
}

// Sniff counts the IP packets on an interface of the host (on "lo" each one twice) for which filter is true, in both
// directions, until ctx is done, or the sniffer or the bed is closed. Received packets are seen before iptables,
// sent ones after it. filter is called from one goroutine at a time.
func (h *Host) Sniff(ctx context.Context, iface string, filter func(Packet) bool) (*Sniffer, error) {
	s := &Sniffer{host: h, filter: filter, done: make(chan struct{}), buf: make([]byte, 128)}
	if err := h.Do(func() error { return s.open(iface) }); err != nil {
		return nil, fmt.Errorf("testbed: sniff %s on %s: %w", iface, h.Name, err)
	}
	h.bed.own(s)
	go s.loop()
	context.AfterFunc(ctx, func() { _ = s.Close() })
	return s, nil
}

// anyProtocol is ETH_P_ALL in network byte order. Source: linux/if_ether.h.
const anyProtocol = 0x0300

func (s *Sniffer) open(iface string) error {
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	// Protocol 0 until the socket is bound: else it would begin with packets of all interfaces.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	s.file = os.NewFile(uintptr(fd), "packets of "+iface)
	// Room for bursts, beyond the limit for ordinary users; what is lost all the same, Count reports.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: anyProtocol, Ifindex: dev.Index})
	if err == nil {
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		_ = s.file.Close()
		return os.NewSyscallError("bind", err)
	}
	return nil
}

// loop empties the socket whenever something arrives, so that its buffer never limits a long test.
func (s *Sniffer) loop() {
	defer close(s.done)
	_ = s.raw.Read(func(fd uintptr) bool {
		s.drain(int(fd))
		return false // wait for more; closing the file ends the wait
	})
}

// drain counts what is in the socket's buffer now.
func (s *Sniffer) drain(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		n, from, err := unix.Recvfrom(fd, s.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			break
		}
		p, ok := parsePacket(s.buf[:n])
		if !ok {
			continue
		}
		if ll, isLL := from.(*unix.SockaddrLinklayer); isLL {
			p.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
		}
		if s.filter(p) {
			s.count++
		}
	}
	if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		s.lost += int(stats.Drops) // reading resets the kernel's counter
	}
}

// Count returns how many packets matched so far, everything included that had passed the interface before the call.
// It fails if the kernel had to drop packets uncounted: zero would then prove nothing.
func (s *Sniffer) Count() (int, error) {
	err := s.raw.Control(func(fd uintptr) { s.drain(int(fd)) })
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return 0, fmt.Errorf("sniffer on %s: %w", s.host.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		return s.count, fmt.Errorf("sniffer on %s: %d packets lost", s.host.Name, s.lost)
	}
	return s.count, nil
}

// Close ends the counting; Count still answers.
func (s *Sniffer) Close() error {
	s.host.bed.disown(s)
	err := s.file.Close()
	<-s.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
