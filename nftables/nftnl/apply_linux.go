package nftnl

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/nftables"
)

// maxBatch is the most operations of one transaction: even if all were refused, the answers fit the socket's receive
// buffer (net.core.rmem_default, 212992 by default, of which each takes about 800).
const maxBatch = 128

// Apply implements nftables.Tables.
func (t *Tables) Apply(ctx context.Context, ops []nftables.Op) []*nftables.OpError {
	t.mu.Lock()
	defer t.mu.Unlock()
	var failed []*nftables.OpError
	for len(ops) > 0 {
		n := min(len(ops), maxBatch)
		failed = append(failed, t.batch(ctx, ops[:n])...)
		ops = ops[n:]
	}
	return failed
}

// attempt is one operation of a batch: as which requests it goes out, and what became of it.
type attempt struct {
	op      nftables.Op
	replace bool // delete before adding
	done    bool // nothing left to do
	err     error
}

// batch carries the operations out as one transaction. What the kernel refuses keeps the others from happening, so it
// is sent again without, or in place of an addition that clashes with another mark, with a deletion before it.
func (t *Tables) batch(ctx context.Context, ops []nftables.Op) []*nftables.OpError {
	attempts := make([]attempt, len(ops))
	for i, op := range ops {
		attempts[i] = attempt{op: op, err: op.Check()}
	}
	for {
		again, err := t.send(ctx, attempts)
		for i := range attempts {
			if a := &attempts[i]; err != nil && a.err == nil && !a.done {
				a.err = err
			}
		}
		if !again || err != nil {
			break
		}
	}
	var failed []*nftables.OpError
	for _, a := range attempts {
		if a.err != nil {
			failed = append(failed, &nftables.OpError{Op: a.op, Err: a.err})
		}
	}
	return failed
}

// send sends what is left as one transaction, and reports whether it has to be sent again.
func (t *Tables) send(ctx context.Context, attempts []attempt) (again bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	var requests []request
	var of []int // the attempt that a request belongs to
	for i, a := range attempts {
		if a.err != nil || a.done {
			continue
		}
		if a.replace {
			gone := a.op
			gone.Delete = true
			requests, of = append(requests, elementRequest(gone)), append(of, i)
		}
		requests, of = append(requests, elementRequest(a.op)), append(of, i)
	}
	if len(requests) == 0 {
		return false, nil
	}
	refused, err := t.conn.transact(requests, false)
	if err != nil {
		return false, err
	}
	for r, err := range refused {
		attempts[of[r]].refused(err)
	}
	return len(refused) > 0, nil
}

// refused notes what the kernel said. Every refusal changes the attempt, so that repeating comes to an end.
func (a *attempt) refused(err error) {
	absent := errors.Is(err, unix.ENOENT)
	switch {
	case a.op.Delete && absent:
		a.done = true
	case !a.op.Delete && !a.replace && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)):
		a.replace = true
	case absent:
		a.err = fmt.Errorf("%w: %w", nftables.ErrNoSet, err)
	case errors.Is(err, unix.EINVAL):
		a.err = fmt.Errorf("%w: %w", nftables.ErrElement, err)
	default:
		a.err = err
	}
}
