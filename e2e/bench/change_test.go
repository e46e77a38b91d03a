//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

const (
	// askEvery is how often the kernel is asked for one change, and churnEvery for many.
	askEvery   = 4 * time.Millisecond
	churnEvery = 5 * time.Millisecond
	// lull lies between single changes: longer than kube-proxy's least time between two syncs, which is 1 s, so that
	// none waits for the one before.
	lull = 1250 * time.Millisecond
)

// errAbsent says that the kernel does not hold a change yet.
var errAbsent = errors.New("not in the kernel")

// next chooses another last endpoint for the i-th Service and returns its address.
func (r *run) next(i int) netip.Addr {
	r.round[i]++
	return moving(i, r.round[i])
}

// spread returns the k-th Service to change: all of them in turn, far apart.
func (r *run) spread(k int) int { return k * 7919 % r.services }

// inKernel returns nil if the kernel holds the endpoint.
func (r *run) inKernel(ctx context.Context, i int, endpoint netip.Addr) error {
	found, err := r.kernelView.holds(ctx, i, endpoint)
	if err == nil && !found {
		err = errAbsent
	}
	return err
}

// single is how long one change took from the request on, and how much of that the subject was in syncs, and how many
// those were: a verification of everything is one too.
type single struct {
	kernel, delivery, own time.Duration
	syncs                 int
}

// changes replaces one endpoint after the other, each when the daemon has nothing else to do.
func (r *run) changes(ctx context.Context) (err error) {
	d, err := r.watchSlices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	before, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	r.telling = 0
	var all []single
	for begin := time.Now(); len(all) < r.plan.changes && time.Since(begin) < r.budget; {
		if err := r.rest(ctx, lull); err != nil {
			return err
		}
		one, err := r.changeOne(ctx, d, r.spread(len(all)))
		if err != nil {
			return fmt.Errorf("change %d: %w", len(all), err)
		}
		all = append(all, one)
	}
	after, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	return errors.Join(
		r.noteChanges(all),
		r.note(result.ChangeCPU, milliseconds(after-before-r.telling)/float64(len(all))),
	)
}

func (r *run) changeOne(ctx context.Context, d *deliveries, i int) (single, error) {
	earlier, err := r.syncs(ctx)
	if err != nil {
		return single{}, err
	}
	endpoint := r.next(i)
	written := make(chan error, 1)
	begin := time.Now()
	go func() { written <- change(ctx, r.client, i, r.round[i]) }()
	err = r.await(ctx, askEvery, r.start, func() error { return r.inKernel(ctx, i, endpoint) })
	end := time.Now()
	if err := errors.Join(err, <-written); err != nil {
		return single{}, err
	}
	var delivered time.Time
	err = r.await(ctx, askEvery, r.start, func() (err error) {
		delivered, err = d.of(endpoint)
		return err
	})
	if err != nil {
		return single{}, err
	}
	var later syncTimes
	err = r.await(ctx, churnEvery, r.start, func() (err error) { // the kernel is ahead of the count by a moment
		if later, err = r.syncs(ctx); err == nil && later.count == earlier.count {
			err = errors.New("no sync was counted")
		}
		return err
	})
	own := time.Duration((later.sum - earlier.sum) * float64(time.Second))
	return single{end.Sub(begin), delivered.Sub(begin), own, int(later.count - earlier.count)}, err
}

func (r *run) noteChanges(all []single) error {
	var kernel, delivery, beyond, own []time.Duration
	fewest := slices.MinFunc(all, func(a, b single) int { return a.syncs - b.syncs }).syncs
	for _, s := range all {
		kernel, delivery = append(kernel, s.kernel), append(delivery, s.delivery)
		beyond = append(beyond, s.kernel-s.delivery)
		if s.syncs == fewest { // else a sync that the change did not cause is among them
			own = append(own, s.own)
		}
	}
	return errors.Join(
		r.noteQuantiles(kernel, result.ChangeP50, result.ChangeP99, fmt.Sprintf("the kernel was asked every %s", askEvery)),
		r.noteQuantiles(delivery, result.DeliveryP50, result.DeliveryP99, ""),
		r.noteQuantiles(beyond, result.BeyondP50, result.BeyondP99, ""),
		r.noteQuantiles(own, result.OwnP50, result.OwnP99, fmt.Sprintf("of %d changes those with %d sync", len(all), fewest)),
	)
}

// noteQuantiles keeps the median and the 99th percentile in milliseconds.
func (r *run) noteQuantiles(all []time.Duration, p50, p99, note string) error {
	slices.Sort(all)
	return errors.Join(
		r.noteResult(result.Result{Figure: p50, Value: milliseconds(quantile(all, 0.5)), Samples: len(all), Note: note}),
		r.noteResult(result.Result{Figure: p99, Value: milliseconds(quantile(all, 0.99)), Samples: len(all), Note: note}),
	)
}

// quantile returns the least of the sorted values that the share of them does not exceed.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// burst changes many Services as fast as the API server lets it, as when a node is lost. The last one is changed when all
// others are: it is the last to be delivered, so the others are in the kernel when it is, or as good as.
func (r *run) burst(ctx context.Context) (err error) {
	d, err := r.watchSlices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	m := min(r.services/5, r.burstMost)
	for i := range m {
		r.round[i]++
	}
	begin := time.Now()
	err = parallel(ctx, m-1, func(ctx context.Context, i int) error { return change(ctx, r.client, i, r.round[i]) })
	if err == nil {
		err = change(ctx, r.client, m-1, r.round[m-1])
	}
	if err != nil {
		return err
	}
	var end, delivered time.Time
	for i := m - 1; i >= 0; i-- {
		endpoint, late := moving(i, r.round[i]), false
		err := r.await(ctx, churnEvery, r.start, func() error {
			err := r.inKernel(ctx, i, endpoint)
			late = late || err != nil
			return err
		})
		if err != nil {
			return err
		}
		if late || i == m-1 {
			end = time.Now()
		}
	}
	err = r.await(ctx, churnEvery, r.start, func() (err error) {
		delivered, err = d.of(moving(m-1, r.round[m-1]))
		return err
	})
	if err != nil {
		return err
	}
	res := result.Result{Figure: result.BurstTotal, Value: end.Sub(begin).Seconds(), Note: fmt.Sprintf("%d Services", m)}
	return errors.Join(r.noteResult(res), r.note(result.BurstBeyond, end.Sub(delivered).Seconds()))
}
