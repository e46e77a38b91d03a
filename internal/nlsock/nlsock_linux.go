// Package nlsock is a netlink socket to the kernel that never waits for ever.
package nlsock

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for one answer. The kernel works on a request before it is sent, so nothing but a lost
// answer takes that long.
const answerTimeout = 10 * time.Second

// Socket stays in the network namespace of the thread that opened it. One goroutine at a time may use it.
type Socket struct {
	fd  int
	buf []byte
}

// Open opens a socket of a protocol such as unix.NETLINK_NETFILTER. A datagram of more than size bytes cannot be
// received. With capped a refusal does not repeat the request that it is about (NETLINK_CAP_ACK).
func Open(protocol, size int, capped bool) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(answerTimeout))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
	)
	if capped {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink socket: %w", err), unix.Close(fd))
	}
	return &Socket{fd: fd, buf: make([]byte, size)}, nil
}

// Close closes the socket.
func (s *Socket) Close() error { return unix.Close(s.fd) } //nolint:wrapcheck // the caller says what was closed

// Send sends messages to the kernel in one datagram.
func (s *Socket) Send(messages []byte) error {
	if err := unix.Sendto(s.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	return nil
}

// Receive returns what one datagram holds, valid until the next call.
func (s *Socket) Receive() ([]byte, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR): // a socket with a timeout is not restarted after a signal
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("no answer from netlink within %s", answerTimeout)
		case err != nil:
			return nil, fmt.Errorf("receive from netlink: %w", err)
		case n > len(s.buf):
			return nil, fmt.Errorf("netlink message of %d bytes", n)
		}
		return s.buf[:n], nil
	}
}
