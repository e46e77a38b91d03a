//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

// syncEvery is how often a daemon that starts is asked whether it is done. It says when that was.
const syncEvery = 250 * time.Millisecond

const mebibyte = 1 << 20

// sync starts the subject on an empty kernel.
func (r *run) sync(ctx context.Context) error {
	begin, err := r.startDaemon(ctx)
	if err != nil {
		return err
	}
	end, err := r.untilSynced(ctx)
	if errors.Is(err, errUnfinished) {
		res := result.Result{Figure: result.SyncTotal, Value: r.start.Seconds(), AtLeast: true}
		return errors.Join(err, r.noteResult(res))
	}
	if err != nil {
		return err
	}
	if err := r.untilComplete(ctx, &end); err != nil {
		return fmt.Errorf("after the first sync: %v", err) // no figure: the observer or the subject is wrong
	}
	if err := r.note(result.SyncTotal, end.Sub(begin).Seconds()); err != nil {
		return err
	}
	own, err := r.syncs(ctx)
	if err != nil {
		return err
	}
	used, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	_, peak, err := r.daemon.Memory()
	if err != nil {
		return err
	}
	return errors.Join(
		r.noteResult(result.Result{Figure: result.SyncOwn, Value: own.sum, Note: fmt.Sprintf("%.0f syncs", own.count)}),
		r.note(result.SyncCPU, used.Seconds()),
		r.note(result.SyncPeak, float64(peak)/mebibyte),
	)
}

// untilSynced returns when the daemon says that its last sync ended.
func (r *run) untilSynced(ctx context.Context) (end time.Time, err error) {
	err = r.await(ctx, syncEvery, r.start, func() (err error) {
		end, err = r.inSync(ctx)
		return err
	})
	return end, err
}

// untilComplete looks at every Service. If one is not in the kernel although the daemon said so, end becomes the time at
// which all are.
func (r *run) untilComplete(ctx context.Context, end *time.Time) error {
	i := 0
	return r.await(ctx, syncEvery, r.start, func() error {
		for ; i < r.services; i++ {
			found, err := r.kernelView.holds(ctx, i, moving(i, r.round[i]))
			if err == nil && !found {
				err = fmt.Errorf("the kernel lacks %s", serviceName(i))
			}
			if err != nil {
				*end = time.Now()
				return err
			}
		}
		return nil
	})
}

// restart ends the subject without a chance to tidy up and starts it on what it has left in the kernel.
func (r *run) restart(ctx context.Context) error {
	if err := r.daemon.Kill(); err != nil {
		return err
	}
	before, err := r.kernelView.commits()
	if err != nil {
		return err
	}
	begin, err := r.startDaemon(ctx)
	if err != nil {
		return err
	}
	end, err := r.untilSynced(ctx)
	if errors.Is(err, errUnfinished) {
		res := result.Result{Figure: result.RestartTotal, Value: r.start.Seconds(), AtLeast: true}
		return errors.Join(err, r.noteResult(res))
	}
	if err != nil {
		return err
	}
	after, err := r.kernelView.commits()
	if err != nil {
		return err
	}
	own, err := r.syncs(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(
		r.note(result.RestartTotal, end.Sub(begin).Seconds()),
		r.note(result.RestartOwn, own.sum),
		r.note(result.RestartCommits, float64(after-before)),
	); err != nil || r.name != result.KubeHop {
		return err
	}
	m, err := r.node.Metrics(ctx, metricsURL)
	if err != nil {
		return err
	}
	return r.note(result.RestartOperations, m["kubehop_kernel_operations_total"])
}

// idle measures the subject while nothing happens but what it does by itself.
func (r *run) idle(ctx context.Context) error {
	earlier, err := r.syncs(ctx)
	if err != nil {
		return err
	}
	before, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := r.rest(ctx, r.plan.idle); err != nil {
		return err
	}
	took := time.Since(begin)
	after, err := r.daemon.CPU()
	if err != nil {
		return err
	}
	later, err := r.syncs(ctx)
	if err != nil {
		return err
	}
	return r.noteResult(result.Result{
		Figure: result.IdleCPU, Value: 100 * (after - before).Seconds() / took.Seconds(),
		Note: fmt.Sprintf("%.0f s, %.0f syncs or full verifications in it", took.Seconds(), later.count-earlier.count),
	})
}

// memory measures what the subject holds in the end.
func (r *run) memory(context.Context) error {
	resident, peak, err := r.daemon.Memory()
	if err != nil {
		return err
	}
	return errors.Join(
		r.note(result.MemoryResident, float64(resident)/mebibyte),
		r.note(result.MemoryPeak, float64(peak)/mebibyte),
	)
}
