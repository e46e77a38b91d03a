package testbed

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Stream is a held connection, or for UDP a socket that keeps its port. It is for one goroutine.
type Stream struct {
	Answer Answer // of the first request

	host    *Host
	proto   Proto
	dst     netip.AddrPort
	conn    net.Conn
	in      *bufio.Reader
	timeout time.Duration
	fixed   bool // the client's port was asked for
	pings   int
}

// Dial connects to an echo server, sends a first request and keeps the connection. Errors are those of [Host.Ask].
func (h *Host) Dial(ctx context.Context, proto Proto, dst netip.AddrPort, opts ...Option) (*Stream, error) {
	r := request{timeout: h.bed.timeout}
	for _, o := range opts {
		o(&r)
	}
	begin := time.Now()
	conn, err := h.connect(ctx, proto, dst, r)
	if err != nil {
		return nil, h.describe(proto, dst, err)
	}
	s := &Stream{
		host: h, proto: proto, dst: dst, conn: conn, in: bufio.NewReader(conn),
		timeout: r.timeout, fixed: r.from.Port() != 0,
	}
	h.bed.own(s)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := s.exchange("hello\n")
	if err == nil {
		s.Answer, err = parseAnswer(line)
	}
	if err != nil {
		_ = s.Close()
		return nil, h.describe(proto, dst, err)
	}
	s.Answer.Took = time.Since(begin)
	return s, nil
}

// Ping sends a request over the connection and checks the answer; for UDP also that the same host gave it. Errors
// are those of [Host.Ask], or tell of a connection that was cut.
func (s *Stream) Ping() error {
	s.pings++
	sent := fmt.Sprintf("ping %d\n", s.pings)
	want := sent
	if s.proto == UDP {
		want = fmt.Sprintf("%s %s %s", s.Answer.Pod, s.Answer.Peer, sent)
	}
	got, err := s.exchange(sent)
	if err != nil {
		return s.host.describe(s.proto, s.dst, err)
	}
	if got != want {
		return fmt.Errorf("%s to %s: answer %q, want %q", s.host.Name, s.dst, got, want)
	}
	return nil
}

// Local returns the client's own address and port.
func (s *Stream) Local() netip.AddrPort {
	a, err := netip.ParseAddrPort(s.conn.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{} // SCTP after the peer has gone
	}
	return unmapped(a)
}

// Close ends the connection.
func (s *Stream) Close() error {
	s.host.bed.disown(s)
	if tcp, ok := s.conn.(*net.TCPConn); ok && s.fixed && s.proto == TCP {
		// The next request from this port must not meet this one in TIME_WAIT.
		_ = tcp.SetLinger(0)
	}
	return s.conn.Close()
}

// exchange sends a line and reads the answer. Each is one datagram on UDP.
func (s *Stream) exchange(line string) (string, error) {
	if err := s.conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return "", err
	}
	if _, err := s.conn.Write([]byte(line)); err != nil {
		return "", err
	}
	for {
		answer, err := s.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		// The late answer to an earlier datagram is not the answer to this one.
		if s.proto != UDP || strings.HasSuffix(answer, " "+line) {
			return answer, nil
		}
	}
}
