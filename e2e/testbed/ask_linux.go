package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Option changes how a request is made.
type Option func(*request)

// request is how one connection is made.
type request struct {
	from    netip.AddrPort
	timeout time.Duration
}

// From sets the client's address and port; a zero port, or an invalid address, leaves that to the kernel. The
// address must be one of the host's.
func From(source netip.AddrPort) Option { return func(r *request) { r.from = source } }

// FromPort sets the client's port.
func FromPort(port uint16) Option { return From(netip.AddrPortFrom(netip.Addr{}, port)) }

// Timeout sets how long to wait for the connection and for each answer, instead of [Options].Timeout.
func Timeout(d time.Duration) Option { return func(r *request) { r.timeout = d } }

// Ask sends one request from the host to an echo server at dst. The error is ErrRefused, ErrTimeout or
// ErrUnreachable, or tells of something else.
func (h *Host) Ask(ctx context.Context, proto Proto, dst netip.AddrPort, opts ...Option) (Answer, error) {
	s, err := h.Dial(ctx, proto, dst, opts...)
	if err != nil {
		return Answer{}, err
	}
	defer s.Close()
	return s.Answer, nil
}

// AskMany sends n requests one after the other. Stop it with ctx.
func (h *Host) AskMany(ctx context.Context, n int, proto Proto, dst netip.AddrPort, opts ...Option) Tally {
	var t Tally
	for range n {
		t.Add(h.Ask(ctx, proto, dst, opts...))
		if ctx.Err() != nil {
			break
		}
	}
	return t
}

// connect makes the socket in the host's namespace and connects it.
func (h *Host) connect(ctx context.Context, proto Proto, dst netip.AddrPort, r request) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	derr := h.Do(func() error {
		d := net.Dialer{Control: reuseAddress, KeepAlive: -1} // package net would send probes, and an idle connection be none
		d.SetMultipathTCP(false)
		switch proto {
		case TCP:
			d.LocalAddr = localAddr(r.from, dst, net.TCPAddrFromAddrPort)
			conn, err = d.DialContext(ctx, "tcp", dst.String())
		case UDP:
			d.LocalAddr = localAddr(r.from, dst, net.UDPAddrFromAddrPort)
			conn, err = d.DialContext(ctx, "udp", dst.String())
		case SCTP:
			conn, err = dialSCTP(ctx, r.from, dst)
		default:
			err = fmt.Errorf("protocol %q: %w", proto, errors.ErrUnsupported)
		}
		return err
	})
	return conn, derr
}

// reuseAddress lets a fixed source port be used again while its last connection is in TIME_WAIT.
func reuseAddress(_, _ string, raw syscall.RawConn) (err error) {
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(cerr, err)
}

// localAddr returns what a net.Dialer is to bind to: nil if nothing was asked for.
func localAddr[A net.Addr](from, dst netip.AddrPort, convert func(netip.AddrPort) A) net.Addr {
	if !from.Addr().IsValid() && from.Port() == 0 {
		return nil
	}
	if !from.Addr().IsValid() {
		unspecified := netip.IPv6Unspecified()
		if dst.Addr().Is4() {
			unspecified = netip.IPv4Unspecified()
		}
		from = netip.AddrPortFrom(unspecified, from.Port())
	}
	return convert(from)
}

// classify puts one of the package's errors around a socket's.
func classify(err error) error {
	var kind error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ECONNREFUSED):
		kind = ErrRefused
	case isTimeout(err):
		kind = ErrTimeout
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES),
		errors.Is(err, unix.EPERM):
		kind = ErrUnreachable
	default:
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, unix.ETIMEDOUT)
}

// describe names the request that an error belongs to.
func (h *Host) describe(proto Proto, dst netip.AddrPort, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s to %s %s: %w", h.Name, strings.ToLower(string(proto)), dst, classify(err))
}
