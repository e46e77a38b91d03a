package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Sender sends datagrams from one port without a pause and does not care for answers, like a log shipper.
type Sender struct {
	host *Host
	conn net.Conn
	done chan struct{}
}

// SendOneWay sends 50 datagrams a second from the host until ctx is done, or the sender or the bed is closed.
func (h *Host) SendOneWay(ctx context.Context, dst netip.AddrPort) (*Sender, error) {
	s := &Sender{host: h, done: make(chan struct{})}
	err := h.Do(func() (err error) {
		s.conn, err = net.Dial("udp", dst.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("testbed: send from %s to %s: %w", h.Name, dst, err)
	}
	h.bed.own(s)
	go s.loop()
	context.AfterFunc(ctx, func() { _ = s.Close() })
	return s, nil
}

func (s *Sender) loop() {
	defer close(s.done)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		// Any other error is that of an earlier datagram, such as a refusal.
		if _, err := s.conn.Write([]byte("one way\n")); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Close ends the sending.
func (s *Sender) Close() error {
	s.host.bed.disown(s)
	err := s.conn.Close()
	<-s.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
