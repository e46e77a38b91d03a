package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"
)

// Server is an echo server of one host. It answers
//
//   - on TCP and SCTP the client's first line with "HOST PEER\n" and every further line with itself, so a client
//     speaks first. A first line "GET ..." gets an HTTP answer with the same text as its body;
//   - on UDP every datagram with "HOST PEER PAYLOAD", from the address it was sent to.
//
// HOST is the host's name, PEER the client as the server sees it, such as 10.244.1.11:40312.
type Server struct {
	Proto Proto
	Port  uint16

	host *Host
	stop func() bool
	wg   sync.WaitGroup

	mu     sync.Mutex
	seen   map[netip.Addr]int
	open   map[io.Closer]struct{} // listeners and accepted connections
	closed bool
}

// Serve starts an echo server on all of the host's addresses, of both families, until ctx is done, the server is
// closed or the bed is. SCTP listens on the host's Addr4 and Addr6 alone: an association may use every address that
// its socket is bound to, and a client must not learn a way around the Service.
func (h *Host) Serve(ctx context.Context, proto Proto, port uint16) (*Server, error) {
	s := &Server{Proto: proto, Port: port, host: h, seen: map[netip.Addr]int{}, open: map[io.Closer]struct{}{}}
	if err := h.Do(func() error { return s.listen(ctx) }); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: serve %s %d on %s: %w", proto, port, h.Name, err), s.Close())
	}
	h.bed.own(s)
	s.stop = context.AfterFunc(ctx, func() { _ = s.Close() })
	return s, nil
}

func (s *Server) listen(ctx context.Context) error {
	cfg := net.ListenConfig{KeepAlive: -1} // as in connect
	cfg.SetMultipathTCP(false)             // plain TCP, as the applications behind Services
	any6 := net.JoinHostPort("::", strconv.Itoa(int(s.Port)))
	switch s.Proto {
	case TCP:
		l, err := cfg.Listen(ctx, "tcp", any6)
		if err != nil {
			return err
		}
		s.goAccept(l)
	case UDP:
		c, err := cfg.ListenPacket(ctx, "udp", any6)
		if err != nil {
			return err
		}
		return s.goReceive(c.(*net.UDPConn))
	case SCTP:
		for _, addr := range []netip.Addr{s.host.Addr4, s.host.Addr6} {
			l, err := listenSCTP(netip.AddrPortFrom(addr, s.Port))
			if err != nil {
				return err
			}
			s.goAccept(l)
		}
	default:
		return fmt.Errorf("protocol %q: %w", s.Proto, errors.ErrUnsupported)
	}
	return nil
}

// Seen returns how many connections or datagrams came from which address.
func (s *Server) Seen() map[netip.Addr]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.seen)
}

// Count returns how many connections or datagrams came in all.
func (s *Server) Count() int {
	n := 0
	for _, c := range s.Seen() {
		n += c
	}
	return n
}

// Reset forgets what was seen.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.seen)
}

// Close stops the server, cuts its connections and waits for its goroutines.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		_ = c.Close() // what fails to close was closed by its peer's doing
	}
	s.wg.Wait()
	s.host.bed.disown(s)
	return nil
}

// saw counts a connection or datagram.
func (s *Server) saw(peer netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[peer.Addr()]++
}

// run starts fn, which lives no longer than c is open; Close closes c.
func (s *Server) run(c io.Closer, fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return
	}
	s.open[c] = struct{}{}
	s.wg.Go(func() {
		fn()
		_ = c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
	})
}
