package testbed

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// How a request can end without an answer. Test with errors.Is; every other error is a fault of the bed, or a
// connection that broke after it was made.
var (
	// ErrRefused: the peer or a router said no at once (TCP reset, SCTP abort, ICMP port unreachable).
	ErrRefused = errors.New("refused")
	// ErrTimeout: nothing came back, so the request or its answer was dropped. An SCTP request that is answered by
	// ICMP ends so too: Linux lets SCTP sockets ignore that.
	ErrTimeout = errors.New("timeout")
	// ErrUnreachable: no route, or an ICMP error other than port unreachable.
	ErrUnreachable = errors.New("unreachable")
)

// Answer is what an echo server said about one request.
type Answer struct {
	Pod  string         // the host that answered
	Peer netip.AddrPort // the client as that host saw it
	Took time.Duration  // from before the connect until the answer
}

// parseAnswer reads "POD PEER", or "POD PEER PAYLOAD" for UDP.
func parseAnswer(line string) (Answer, error) {
	fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
	if len(fields) < 2 {
		return Answer{}, fmt.Errorf("answer %q: not from an echo server", line)
	}
	peer, err := netip.ParseAddrPort(fields[1])
	if err != nil {
		return Answer{}, fmt.Errorf("answer %q: %w", line, err)
	}
	return Answer{Pod: fields[0], Peer: peer}, nil
}

// Tally is the sum of many requests. The zero value is empty.
type Tally struct {
	N      int
	Pods   map[string]int     // answers by pod
	Peers  map[netip.Addr]int // answers by client address, as pods saw it
	Errors []error            // one for each request without an answer
	Took   time.Duration      // of all requests
}

// Add counts one request.
func (t *Tally) Add(a Answer, err error) {
	t.N++
	if t.Pods == nil {
		t.Pods, t.Peers = map[string]int{}, map[netip.Addr]int{}
	}
	if err != nil {
		t.Errors = append(t.Errors, err)
		return
	}
	t.Pods[a.Pod]++
	t.Peers[a.Peer.Addr()]++
	t.Took += a.Took
}

// Err returns the failures joined, nil if every request was answered.
func (t *Tally) Err() error { return errors.Join(t.Errors...) }
