package testbed

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unmapped returns the address without the IPv6 form that dual-stack sockets give IPv4 peers.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// remote returns the peer of a TCP connection, or of an SCTP one, which wears the same type.
func remote(c net.Conn) netip.AddrPort {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return unmapped(a.AddrPort())
	}
	return netip.AddrPort{} // the peer went away between accept and here
}

// goAccept serves every connection that l accepts.
func (s *Server) goAccept(l net.Listener) {
	s.run(l, func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a connection that was reset before it was accepted
			}
			s.saw(remote(c))
			s.run(c, func() { s.converse(c) })
		}
	})
}

// converse answers line by line until the client closes.
func (s *Server) converse(c net.Conn) {
	in := bufio.NewReader(c)
	self := fmt.Sprintf("%s %s\n", s.host.Name, remote(c))
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	if strings.HasPrefix(line, "GET ") {
		answerHTTP(c, in, self)
		return
	}
	for line = self; err == nil; line, err = in.ReadString('\n') {
		if _, werr := c.Write([]byte(line)); werr != nil {
			return
		}
	}
}

// answerHTTP reads the rest of the request and answers it. A few lines instead of net/http, whose server wants to
// own the listener.
func answerHTTP(c net.Conn, in *bufio.Reader, body string) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"+
		"Connection: close\r\n\r\n%s", len(body), body)
}

// goReceive answers every datagram that c receives.
func (s *Server) goReceive(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	// A node has many addresses; without this the kernel picks the source of an answer, and the client discards it.
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	if err := errors.Join(cerr, err); err != nil {
		return err
	}
	s.run(c, func() {
		buf, oob := make([]byte, 64<<10), make([]byte, 256)
		for {
			n, oobn, _, peer, err := c.ReadMsgUDPAddrPort(buf, oob)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error that an earlier answer caused
			}
			s.saw(unmapped(peer))
			answer := fmt.Appendf(nil, "%s %s %s", s.host.Name, unmapped(peer), buf[:n])
			_, _, _ = c.WriteMsgUDPAddrPort(answer, sourceOf(oob[:oobn]), peer)
		}
	})
	return nil
}

// sourceOf turns the control message of a datagram, which says where it arrived, into that of the answer. The
// interface is left to the routing table: the answer need not leave by the way the request came.
func sourceOf(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO {
			var info unix.Inet6Pktinfo
			if len(m.Data) < int(unsafe.Sizeof(info)) {
				return nil
			}
			copy(info.Addr[:], m.Data)
			return unix.PktInfo6(&info)
		}
	}
	return nil
}
