//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// heardAll begins the line that the watcher (e2e/bench/onlywatch) writes when it has heard of all objects; the time follows.
const heardAll = "heard of all at "

// heardOf is the line that it writes in the end for each endpoint of a Service that has changed.
const heardOf = "heard first of %s at %d"

// startWatcher starts the watcher and returns when it has heard of all, and when that was.
func (r *run) startWatcher(ctx context.Context) (p *testbed.Proc, began, heard time.Time, err error) {
	began = time.Now()
	p, err = r.node.Start(ctx, filepath.Join(r.out, "onlywatch"), []string{r.kubeconfig, r.node.Name}, filepath.Join(r.dir, "watcher.log"))
	if err != nil {
		return nil, began, heard, err
	}
	err = r.await(ctx, syncEvery, r.start, func() error {
		_, text, found := strings.Cut(p.Tail(1), heardAll)
		if !found {
			return fmt.Errorf("the watcher has not heard of all; it says %q", p.Tail(3))
		}
		at, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		heard = time.Unix(0, at)
		return err
	})
	return p, began, heard, err
}

// watchStart measures what it takes to hear of all objects, before the subject runs.
func (r *run) watchStart(ctx context.Context) (err error) {
	p, began, heard, err := r.startWatcher(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Kill(), os.Remove(p.Log())) }()
	used, err := p.CPU()
	if err != nil {
		return err
	}
	_, peak, err := p.Memory()
	return errors.Join(
		err,
		r.note(result.WatchStart, heard.Sub(began).Seconds()),
		r.note(result.WatchStartCPU, used.Seconds()),
		r.note(result.WatchStartPeak, float64(peak)/mebibyte),
	)
}

// watchChurn makes the same steady changes once more, for a process that only hears of them. It ends the subject.
func (r *run) watchChurn(ctx context.Context) (err error) {
	if err := errors.Join(r.daemon.Kill(), r.keepLog()); err != nil {
		return err
	}
	r.daemon = nil
	p, _, _, err := r.startWatcher(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Kill()) }()
	d, err := r.watchSlices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	before, err := p.CPU()
	if err != nil {
		return err
	}
	count := int(r.plan.churn.Seconds()) * r.rate
	asked := make(chan changed, count)
	if err := r.changeSteadily(ctx, count, asked); err != nil {
		return err
	}
	delivered := map[netip.Addr]time.Time{}
	for range count {
		change := <-asked
		err := r.await(ctx, churnEvery, time.Minute, func() (err error) {
			delivered[change.endpoint], err = d.of(change.endpoint)
			return err
		})
		if err != nil {
			return err
		}
	}
	after, err := p.CPU()
	if err != nil {
		return err
	}
	if err := p.Stop(ctx, unix.SIGTERM); err != nil {
		return err
	}
	return errors.Join(
		r.note(result.WatchChurnCPU, (after-before).Seconds()*1000/float64(count)),
		r.noteLateness(delivered, p.Log()),
	)
}

// noteLateness keeps how much later than this process's own watch the watcher heard of changes.
func (r *run) noteLateness(delivered map[netip.Addr]time.Time, log string) error {
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	var late []time.Duration
	for line := range strings.Lines(string(text)) {
		heard, is, err := parseDelivery(line, heardOf)
		if err != nil {
			return err
		}
		if d, ours := delivered[heard.endpoint]; is && ours {
			late = append(late, heard.at.Sub(d))
		}
	}
	if len(late) == 0 {
		return errors.New("the watcher has heard of no change")
	}
	return r.noteQuantiles(late, result.WatchLateP50, result.WatchLateP99, "")
}
