package ipvsnl

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/internal/nlsock"
	"github.com/kube-hop/kube-hop/ipvs"
)

const (
	// batchMost is the most operations that are looked at for one system call; some fewer fit into batchBytes.
	batchMost = 512
	// batchBytes bounds what one system call sends. The kernel copies it whole, so it must fit the socket's send
	// buffer (net.core.wmem_default, 212992 by default, of which bookkeeping takes a part).
	batchBytes = 32 << 10
	// answerSize holds the answers that come in one datagram, a few dozen bytes each.
	answerSize = 8 << 10
)

// batcher sends many requests with one system call and reads one answer for all of them, where moby/ipvs sends one
// and waits for its answer. Requests that the kernel refuses are few: their order and exact outcome is left to
// the caller.
type batcher struct {
	*nlsock.Socket

	family uint16 // the number of the generic netlink family IPVS
	seq    uint32
	out    []byte
}

// openBatcher opens a socket in the network namespace, the calling thread's if ns is not open.
func openBatcher(ns netns.NsHandle, h *netlink.Handle) (b *batcher, err error) {
	family, err := h.GenlFamilyGet("IPVS")
	if err != nil {
		return nil, fmt.Errorf("look for IPVS: %w", err)
	}
	b = &batcher{family: family.ID}
	err = inNamespace(ns, func() (err error) {
		// Capped: the repeated requests of a whole batch would not fit the receive buffer.
		b.Socket, err = nlsock.Open(unix.NETLINK_GENERIC, answerSize, true)
		return err
	})
	return b, err
}

// send tries the operations from the first on, as many as one system call takes. It returns how many it took, and
// which of those the kernel refused.
func (b *batcher) send(ops []ipvs.Op) (taken int, refused map[int]error, err error) {
	b.out = b.out[:0]
	first, last := b.seq+1, 0
	for taken < len(ops) && len(b.out) < batchBytes {
		b.seq++
		last = len(b.out)
		b.out = appendRequest(b.out, b.family, b.seq, ops[taken])
		taken++
	}
	// The kernel answers in order, and unless asked only what it refuses: with the last answer all are known.
	binary.NativeEndian.PutUint16(b.out[last+6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := b.Send(b.out); err != nil {
		return taken, nil, err
	}
	refused, err = b.answers(first)
	return taken, refused, err
}

// answers reads until the answer to the last request, and returns the refusals by their position after first.
func (b *batcher) answers(first uint32) (map[int]error, error) {
	var refused map[int]error
	for {
		m, err := b.Receive()
		if err != nil {
			return refused, err
		}
		for len(m) >= unix.NLMSG_HDRLEN+4 {
			length := int(binary.NativeEndian.Uint32(m))
			if length < unix.NLMSG_HDRLEN+4 || length > len(m) {
				return refused, fmt.Errorf("%w: message of %d bytes in %d", errWire, length, len(m))
			}
			kind, seq := binary.NativeEndian.Uint16(m[4:]), binary.NativeEndian.Uint32(m[8:])
			errno := -int32(binary.NativeEndian.Uint32(m[unix.NLMSG_HDRLEN:])) //nolint:gosec // a negative errno
			m = m[min(nlattr.Align4(length), len(m)):]
			if kind != unix.NLMSG_ERROR || int32(seq-first) < 0 { //nolint:gosec // the distance on the circle
				continue // the rest of a batch that was given up
			}
			if errno != 0 {
				if refused == nil {
					refused = map[int]error{}
				}
				refused[int(seq-first)] = unix.Errno(errno)
			}
			if seq == b.seq {
				return refused, nil
			}
		}
	}
}

// batch tries the operations at the head of ops that may go out together and returns how many it took, with the
// errors of those that failed. What the kernel refused is done again one by one, because a refusal is often only
// a state that is not as expected (adding what is there); so are the later operations on the same virtual server,
// which may depend on it. Operations are idempotent, so doing one twice is harmless.
func (t *Table) batch(ctx context.Context, ops []ipvs.Op, l *link) (int, []*ipvs.OpError) {
	n := batchable(ops[:min(len(ops), batchMost)])
	if n < 2 || ctx.Err() != nil {
		return 1, t.oneByOne(ctx, ops[:1], l)
	}
	t.mu.Lock()
	taken, refused, err := t.requests.send(ops[:n])
	t.mu.Unlock()
	if err != nil { // what became of them is not known
		return taken, t.oneByOne(ctx, ops[:taken], l)
	}
	if len(refused) == 0 {
		return taken, nil
	}
	var again []ipvs.Op
	keys := map[ipvs.Key]bool{}
	for i, op := range ops[:taken] {
		if refused[i] != nil {
			keys[op.Key] = true
		}
		if keys[op.Key] {
			again = append(again, op)
		}
	}
	return taken, t.oneByOne(ctx, again, l)
}

// batchable returns how many operations at the head of ops are valid requests that give the same result when those
// that are refused are done again after the others, in order for each virtual server. So a virtual server does not
// come or go after a request that may have been refused for its absence or presence.
func batchable(ops []ipvs.Op) int {
	seen := map[ipvs.Key]bool{}
	for i, op := range ops {
		if _, ok := command(op.Verb); !ok || op.Validate() != nil {
			return i
		}
		switch op.Verb {
		case ipvs.AddVirtual, ipvs.EditVirtual, ipvs.DeleteVirtual:
			if seen[op.Key] {
				return i
			}
		default: // on real servers
		}
		if i == 0 || op.Key != ops[i-1].Key {
			seen[op.Key] = true
		}
	}
	return len(ops)
}

// oneByOne tries the operations with a request and an answer for each.
func (t *Table) oneByOne(ctx context.Context, ops []ipvs.Op, l *link) []*ipvs.OpError {
	var failed []*ipvs.OpError
	for _, op := range ops {
		if err := t.try(ctx, op, l); err != nil {
			failed = append(failed, &ipvs.OpError{Op: op, Err: err})
		}
	}
	return failed
}
