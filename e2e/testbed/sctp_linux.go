package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ProbeSCTP says whether the kernel has SCTP; it loads the module if there is one.
func ProbeSCTP() error {
	fd, err := socketSCTP(netip.IPv4Unspecified())
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// socketSCTP makes a one-to-one socket of the address's family.
func socketSCTP(addr netip.Addr) (int, error) {
	family := unix.AF_INET6
	if addr.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	return fd, os.NewSyscallError("socket SCTP", err)
}

// bindSCTP makes a socket with one local address. Bound to more, SCTP would tell its peer all of them, and both
// would use paths that no Service is on.
func bindSCTP(local netip.AddrPort) (int, error) {
	fd, err := socketSCTP(local.Addr())
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(local)); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", local, os.NewSyscallError("bind", err))
	}
	return fd, nil
}

// listenSCTP returns a listener of package net. That package knows no SCTP, but takes any connected stream socket
// handed over as a file for TCP, and does nothing with it that SCTP cannot do.
func listenSCTP(local netip.AddrPort) (net.Listener, error) {
	fd, err := bindSCTP(local)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close() // the listener has a duplicate
	if err := unix.Listen(fd, 128); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen SCTP %s: %w", local, err)
	}
	return l, nil
}

// dialSCTP connects from the thread's namespace. An invalid source address means the one that the routing table
// prefers.
func dialSCTP(ctx context.Context, local, dst netip.AddrPort) (net.Conn, error) {
	if !local.Addr().IsValid() || local.Addr().IsUnspecified() {
		source, err := sourceFor(dst)
		if err != nil {
			return nil, err
		}
		local = netip.AddrPortFrom(source, local.Port())
	}
	fd, err := bindSCTP(local)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close()
	if err := unix.Connect(fd, sockaddr(dst)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, os.NewSyscallError("connect", err)
	}
	if err := awaitConnect(ctx, fd); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("dial SCTP %s: %w", dst, err)
	}
	return c, nil
}

// awaitConnect waits for the end of a connect that was begun, at most until ctx's deadline.
func awaitConnect(ctx context.Context, fd int) error {
	for {
		wait := time.Second
		if end, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(end))
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(poll, max(0, int(wait.Milliseconds())))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			break
		}
		if ctx.Err() != nil || wait <= time.Millisecond {
			return os.ErrDeadlineExceeded
		}
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return os.NewSyscallError("connect", err)
}

// sourceFor asks the routing table for the local address, by way of a UDP socket that sends nothing.
func sourceFor(dst netip.AddrPort) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
