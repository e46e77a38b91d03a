package ipsetnl

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/iptables"
)

// Apply implements iptables.Sets.
func (s *Sets) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apply(ctx, ops)
}

func (s *Sets) apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	var failed []*iptables.SetError
	for len(ops) > 0 {
		n := 1
		if err := ops[0].Entry.Check(); err != nil {
			failed = append(failed, &iptables.SetError{Op: ops[0], Err: err})
		} else {
			n = nextBatch(ops)
			failed = append(failed, s.batch(ctx, ops[:n])...)
		}
		ops = ops[n:]
	}
	return failed
}

// batch sends operations of one set and verb, again and again without what failed, until all are done.
func (s *Sets) batch(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	var failed []*iptables.SetError
	for len(ops) > 0 {
		err := ctx.Err()
		if err == nil {
			err = s.send(ops)
		}
		if err == nil {
			return failed
		}
		i, known := culprit(err, len(ops))
		switch {
		case known:
			// Those before it are done.
			failed = append(failed, &iptables.SetError{Op: ops[i], Err: err})
			ops = ops[i+1:]
		case !isRefusal(err) || errors.Is(err, iptables.ErrNoSet):
			return append(failed, allFailed(ops, err)...)
		default:
			return append(failed, s.oneByOne(ctx, ops)...)
		}
	}
	return failed
}

// send sends one batch. Deleting from a set that is absent succeeds.
func (s *Sets) send(ops []iptables.SetOp) error {
	cmd := uint8(cmdAdd)
	if ops[0].Delete {
		cmd = cmdDel
	}
	// Without NLM_F_EXCL the kernel takes what is there (or, deleting, not there) for done: flag_exist() in
	// ip_set_core.c.
	err := s.conn.do(cmd, unix.NLM_F_ACK, batchMessage(ops[0].Set, ops), nil)
	if ops[0].Delete && errors.Is(err, iptables.ErrNoSet) {
		return nil
	}
	return err
}

// culprit returns which operation of a batch of n the kernel blames.
func culprit(err error, n int) (int, bool) {
	if n == 1 {
		return 0, true
	}
	var e *requestError
	if !errors.As(err, &e) || e.line == 0 || int64(e.line) > int64(n) {
		return 0, false
	}
	return int(e.line) - 1, true
}

// isRefusal tells the kernel's no from a socket that does not work, where trying the other entries is no use.
func isRefusal(err error) bool {
	var e *requestError
	return errors.As(err, &e)
}

// oneByOne serves batches that failed without the kernel saying at which entry.
func (s *Sets) oneByOne(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	var failed []*iptables.SetError
	for i := range ops {
		failed = append(failed, s.batch(ctx, ops[i:i+1])...)
	}
	return failed
}

func allFailed(ops []iptables.SetOp, err error) []*iptables.SetError {
	failed := make([]*iptables.SetError, 0, len(ops))
	for _, op := range ops {
		failed = append(failed, &iptables.SetError{Op: op, Err: err})
	}
	return failed
}
