//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

// changed is the next last endpoint of a Service.
type changed struct {
	service  int
	endpoint netip.Addr
}

// pending is a change that was delivered and that the kernel may not hold yet.
type pending struct {
	changed
	delivered time.Time
	held      time.Time // when the kernel was seen to hold it, or a later one of the same Service
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
	asked := make(chan changed, count)
	begin := time.Now()
	var wrote time.Duration
	writers, writing := errgroup.WithContext(ctx)
	writers.Go(func() error {
		defer close(asked)
		err := r.changeSteadily(writing, count, asked)
		wrote = time.Since(begin)
		return err
	})
	q, err := r.follow(writing, d, asked) // not to its limit when a change failed
	if err := errors.Join(err, writers.Wait()); err != nil {
		return err
	}
	after, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	return errors.Join(
		r.noteStaleness(q),
		r.noteResult(result.Result{Figure: result.ChurnRate, Value: float64(count) / wrote.Seconds(), Samples: count}),
		r.note(result.ChurnCPU, (after-before).Seconds()*1000/float64(count)),
	)
}

// changeSteadily makes the changes and tells of each before it asks for it. It falls behind when the API server does.
func (r *run) changeSteadily(ctx context.Context, count int, asked chan<- changed) error {
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
			asked <- changed{i, endpoint}
			return change(ctx, r.client, i, round)
		})
	}
	return g.Wait()
}

// follow asks the kernel again and again for what has been delivered, until all of it is there or time is up.
func (r *run) follow(ctx context.Context, d *deliveries, asked <-chan changed) (*queue, error) {
	q := &queue{service: map[netip.Addr]int{}, of: map[int][]netip.Addr{}}
	limit := time.Now().Add(r.plan.churn + r.budget)
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	for asked != nil || q.left() > 0 {
		select {
		case <-tick.C:
		case <-r.daemon.Done():
			return nil, fmt.Errorf("%s has ended:\n%s", r.name, r.daemon.Tail(30))
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !q.takeAsked(asked) { // first, for what is delivered to be known
			asked = nil
		}
		if err := q.takeDelivered(d); err != nil {
			return nil, err
		}
		if err := r.takeHeld(ctx, q); err != nil {
			return nil, err
		}
		if asked == nil && time.Now().After(limit) {
			break
		}
	}
	q.end = time.Now()
	return q, nil
}

// queue is the changes: those that were not delivered yet, those that were, in that order, and those that the kernel was
// seen to hold.
type queue struct {
	service       map[netip.Addr]int // of those that were not delivered
	waiting, done []pending
	of            map[int][]netip.Addr // the last endpoints of a Service that the kernel was not seen to hold
	// looked is when the kernel was last asked, and gaps how long after the time before: on a busy machine it is not as often
	// as it should be.
	looked time.Time
	gaps   []time.Duration
	end    time.Time // when time was up or nothing was left
}

// takeAsked takes in the changes that were asked for up to now. It returns false if there will be no more.
func (q *queue) takeAsked(asked <-chan changed) bool {
	for asked != nil {
		select {
		case c, more := <-asked:
			if !more {
				return false
			}
			q.service[c.endpoint] = c.service
			q.of[c.service] = append(q.of[c.service], c.endpoint)
		default:
			return true
		}
	}
	return false
}

// left returns how many changes the kernel was not seen to hold.
func (q *queue) left() int { return len(q.service) + len(q.waiting) }

// takeDelivered moves those that have been delivered to the end of those that wait for the kernel.
func (q *queue) takeDelivered(d *deliveries) error {
	for {
		next, err := d.next()
		if errors.Is(err, errUndelivered) {
			return nil
		}
		if err != nil {
			return err
		}
		if i, ours := q.service[next.endpoint]; ours {
			delete(q.service, next.endpoint)
			q.waiting = append(q.waiting, pending{changed: changed{i, next.endpoint}, delivered: next.at})
		}
	}
}

// takeHeld moves changes from waiting to done, up to the first that the kernel does not hold. A subject hears of them in the
// order of their deliveries and brings all that it has heard of into the kernel: so the kernel holds those before one that
// it holds, and need not be asked for each, which takes longer with nf_tables than the changes take to come.
func (r *run) takeHeld(ctx context.Context, q *queue) error {
	q.look(time.Now())
	var failed error
	held := sort.Search(len(q.waiting), func(i int) bool {
		if failed != nil {
			return true
		}
		found, err := r.isHeld(ctx, q, q.waiting[i])
		failed = err
		return !found
	})
	if failed != nil {
		return failed
	}
	now := time.Now()
	for _, p := range q.waiting[:held] {
		p.held = now
		q.done = append(q.done, p)
		q.of[p.service] = slices.DeleteFunc(q.of[p.service], func(a netip.Addr) bool { return a == p.endpoint })
	}
	q.waiting = q.waiting[held:]
	return nil
}

// isHeld tells whether the kernel holds a change, or a later one of the same Service that has come instead.
func (r *run) isHeld(ctx context.Context, q *queue, p pending) (bool, error) {
	for _, endpoint := range q.of[p.service] {
		if err := r.inKernel(ctx, p.service, endpoint); !errors.Is(err, errAbsent) {
			return err == nil, err
		}
	}
	return false, nil
}

// look notes that the kernel is asked, if there is something to ask for.
func (q *queue) look(now time.Time) {
	if len(q.waiting) == 0 {
		q.looked = time.Time{}
		return
	}
	if !q.looked.IsZero() {
		q.gaps = append(q.gaps, now.Sub(q.looked))
	}
	q.looked = now
}

// noteStaleness keeps how long after its delivery each change was in the kernel. Those that were not when time was up count
// with how long they have waited till then, which is the least that it can be.
func (r *run) noteStaleness(q *queue) error {
	note := fmt.Sprintf("the kernel was to be asked every %s", churnEvery)
	if len(q.gaps) > 0 {
		slices.Sort(q.gaps)
		note += fmt.Sprintf(" and was at p99 after %s", quantile(q.gaps, 0.99).Round(time.Millisecond))
	}
	left := q.left()
	if left > 0 {
		note += fmt.Sprintf("; %d changes were not in the kernel in the end, %d of them not even delivered", left, len(q.service))
	}
	var stale []time.Duration
	for _, p := range q.done {
		stale = append(stale, p.held.Sub(p.delivered))
	}
	for _, p := range q.waiting {
		stale = append(stale, q.end.Sub(p.delivered))
	}
	if len(stale) == 0 {
		return errors.New("no change was delivered")
	}
	slices.Sort(stale)
	least := time.Duration(math.MaxInt64) // of those that are only known to be at least that
	if n := len(q.waiting); n > 0 {
		least = q.end.Sub(q.waiting[n-1].delivered)
	}
	keep := func(figure string, share float64) error {
		v := quantile(stale, share)
		return r.noteResult(result.Result{
			Figure: figure, Value: milliseconds(v), AtLeast: v >= least, Samples: len(stale), Note: note,
		})
	}
	return errors.Join(keep(result.ChurnP50, 0.5), keep(result.ChurnP99, 0.99))
}
