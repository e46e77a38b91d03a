//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

// pending is a change that was made and that the kernel may not hold yet.
type pending struct {
	service  int
	endpoint netip.Addr
	held     time.Time // when the kernel was seen to hold it, or a later one of the same Service
}

// churn makes changes at a steady rate and follows each into the kernel.
func (r *run) churn(ctx context.Context) (err error) {
	d, err := r.watchSlices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	before, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	count := int(r.plan.churn.Seconds()) * r.rate
	made := make(chan pending, count)
	begin := time.Now()
	var wrote time.Duration
	var writers errgroup.Group
	writers.Go(func() error {
		defer close(made)
		err := r.changeSteadily(ctx, count, made)
		wrote = time.Since(begin)
		return err
	})
	q, err := r.follow(ctx, made)
	if err := errors.Join(err, writers.Wait()); err != nil {
		return err
	}
	after, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	return errors.Join(
		r.noteStaleness(ctx, d, q),
		r.noteResult(result.Result{Figure: result.ChurnRate, Value: float64(count) / wrote.Seconds(), Samples: count}),
		r.note(result.ChurnCPU, (after-before).Seconds()*1000/float64(count)),
	)
}

// changeSteadily makes the changes and tells of each when it is made. It falls behind when the API server does.
func (r *run) changeSteadily(ctx context.Context, count int, made chan<- pending) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	tick := time.NewTicker(time.Second / time.Duration(r.rate))
	defer tick.Stop()
	for k := range count {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return g.Wait()
		}
		i := r.spread(k)
		endpoint, round := r.next(i), r.round[i]
		g.Go(func() error {
			err := change(ctx, r.client, i, round)
			made <- pending{service: i, endpoint: endpoint}
			return err
		})
	}
	return g.Wait()
}

// follow asks the kernel for the oldest change until it is there, then for the next, until all are or time is up.
func (r *run) follow(ctx context.Context, made <-chan pending) (*queue, error) {
	q := &queue{of: map[int][]netip.Addr{}}
	limit := time.Now().Add(r.plan.churn + r.budget)
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	for made != nil || len(q.waiting) > 0 {
		select {
		case p, open := <-made:
			if !open {
				made = nil
				continue
			}
			q.add(p)
			continue
		case <-tick.C:
		case <-r.daemon.Done():
			return nil, fmt.Errorf("%s has ended:\n%s", r.name, r.daemon.Tail(30))
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err := r.takeHeld(ctx, q); err != nil {
			return nil, err
		}
		if made == nil && time.Now().After(limit) {
			break
		}
	}
	return q, nil
}

// queue is the changes in the order they were made: those that the kernel was seen to hold, and the others.
type queue struct {
	done, waiting []pending
	of            map[int][]netip.Addr // the last endpoints of a Service that wait, in order
	// asked is when the kernel was last asked, and gaps how long after the time before: on a busy machine it is not as often
	// as it should be.
	asked time.Time
	gaps  []time.Duration
}

func (q *queue) add(p pending) {
	q.waiting = append(q.waiting, p)
	q.of[p.service] = append(q.of[p.service], p.endpoint)
}

// takeHeld moves changes from waiting to done, up to the first that the kernel does not hold.
func (r *run) takeHeld(ctx context.Context, q *queue) error {
	if now := time.Now(); len(q.waiting) > 0 {
		if !q.asked.IsZero() {
			q.gaps = append(q.gaps, now.Sub(q.asked))
		}
		q.asked = now
	} else {
		q.asked = time.Time{} // nothing to ask for
	}
	for len(q.waiting) > 0 {
		p := q.waiting[0]
		err := errAbsent
		for _, endpoint := range q.of[p.service] { // its own, or a later one that has come instead
			if err = r.inKernel(ctx, p.service, endpoint); !errors.Is(err, errAbsent) {
				break
			}
		}
		if errors.Is(err, errAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		p.held = time.Now()
		q.done, q.waiting = append(q.done, p), q.waiting[1:]
		q.of[p.service] = q.of[p.service][1:]
	}
	return nil
}

// noteStaleness keeps how long after its delivery each change was in the kernel.
func (r *run) noteStaleness(ctx context.Context, d *deliveries, q *queue) error {
	var stale []time.Duration
	for _, p := range q.done {
		var delivered time.Time
		err := r.await(ctx, churnEvery, time.Minute, func() (err error) { // the subject may hear of it first
			delivered, err = d.of(p.endpoint)
			return err
		})
		if err != nil {
			return err
		}
		stale = append(stale, p.held.Sub(delivered))
	}
	if left := len(q.waiting); left > 0 || len(stale) == 0 || len(q.gaps) == 0 {
		note := fmt.Sprintf("%d of %d changes were not in the kernel in the end", left, left+len(q.done))
		return r.noteResult(result.Result{Figure: result.ChurnP99, Value: milliseconds(r.budget), AtLeast: true, Samples: len(q.done), Note: note})
	}
	slices.Sort(q.gaps)
	return r.noteQuantiles(stale, result.ChurnP50, result.ChurnP99, fmt.Sprintf("the kernel was to be asked every %s, and was at p99 after %s",
		churnEvery, quantile(q.gaps, 0.99).Round(time.Millisecond)))
}
