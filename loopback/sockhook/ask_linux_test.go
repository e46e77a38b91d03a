package sockhook_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcp starts a server that sends what it calls itself to everybody who connects.
func tcp(t *testing.T, at netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", at.String())
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, at.String())
			_ = c.Close()
		}
	}()
}

// udp starts a server that answers each datagram with what it calls itself.
func udp(t *testing.T, at netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(at.String()), from)
		}
	}()
}

// ask connects and returns who answers, the error's text if nobody does. from may be empty.
func ask(network, from, to string) string {
	d := net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
		d.LocalAddr = local
		if network == "udp" {
			d.LocalAddr = (*net.UDPAddr)(local)
		}
	}
	c, err := d.Dial(network, to)
	if err != nil {
		return refusedOr(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if network == "udp" {
		_, _ = io.WriteString(c, "?")
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return refusedOr(err)
	}
	return string(buf[:n])
}

func refusedOr(err error) string {
	if errors.Is(err, unix.ECONNREFUSED) {
		return "refused"
	}
	return err.Error()
}
