package main

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenAnywhere listens also at an address that no interface has: a LoadBalancer IP is local by a route, which is
// enough for IPv4 but not for IPv6, and the route may come and go while the socket stays.
func listenAnywhere(ctx context.Context, network, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) (err error) {
		level, option := unix.SOL_IP, unix.IP_FREEBIND
		if network == "tcp6" {
			level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
		}
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), level, option, 1)
		}), err)
	}}
	return config.Listen(ctx, network, address)
}
