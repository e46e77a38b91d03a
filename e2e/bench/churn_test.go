//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
func (r *run) churn(ctx context.Context) error {
	d, err := watchSlices(ctx, r.client)
	if err != nil {
		return err
	}
	defer d.close()
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
	all, left, err := r.follow(ctx, made)
	if err := errors.Join(err, writers.Wait()); err != nil {
		return err
	}
	after, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	return errors.Join(
		r.noteStaleness(ctx, d, all, left),
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

// follow asks the kernel for the oldest change until it is there, then for the next. It returns those that came, and how
// many had not when time was up.
func (r *run) follow(ctx context.Context, made <-chan pending) (all []pending, left int, err error) {
	q := queue{of: map[int][]netip.Addr{}}
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
			return nil, 0, fmt.Errorf("%s has ended:\n%s", r.name, r.daemon.Tail(30))
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		if err := r.takeHeld(ctx, &q); err != nil {
			return nil, 0, err
		}
		if made == nil && time.Now().After(limit) {
			break
		}
	}
	return q.done, len(q.waiting), nil
}

// queue is the changes in the order they were made: those that the kernel was seen to hold, and the others.
type queue struct {
	done, waiting []pending
	of            map[int][]netip.Addr // the last endpoints of a Service that wait, in order
}

func (q *queue) add(p pending) {
	q.waiting = append(q.waiting, p)
	q.of[p.service] = append(q.of[p.service], p.endpoint)
}

// takeHeld moves changes from waiting to done, up to the first that the kernel does not hold.
func (r *run) takeHeld(ctx context.Context, q *queue) error {
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
func (r *run) noteStaleness(ctx context.Context, d *deliveries, all []pending, left int) error {
	var stale []time.Duration
	for _, p := range all {
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
	if left > 0 || len(stale) == 0 {
		note := fmt.Sprintf("%d of %d changes were not in the kernel in the end", left, left+len(all))
		return r.noteResult(result.Result{Figure: result.ChurnP99, Value: milliseconds(r.budget), AtLeast: true, Samples: len(all), Note: note})
	}
	return r.noteQuantiles(stale, result.ChurnP50, result.ChurnP99, fmt.Sprintf("the kernel was asked every %s", churnEvery))
}
