package proxier

import (
	"context"
	"time"
)

// Run keeps the kernel up to date until ctx ends. Nothing that leads or stops traffic is programmed before the tracker has
// synced, and nothing is taken away at the end: traffic goes on without the daemon.
func (p *Proxier) Run(ctx context.Context) {
	p.prepareAhead(ctx)
	select {
	case <-ctx.Done():
		return
	case <-p.Tracker.Wake(): // the first signal comes with Synced
	}
	p.noteQueued()
	p.Sync(ctx)
	ended := p.now()

	verify := time.NewTicker(p.cfg.SyncPeriod)
	defer verify.Stop()
	for ctx.Err() == nil {
		timer := time.NewTimer(p.untilChore())
		select {
		case <-ctx.Done():
		case <-p.Tracker.Wake():
			// Leading edge: a lone change is applied at once, a burst is collected until the period is over.
			p.noteQueued()
			sleep(ctx, p.cfg.MinSyncPeriod-p.now().Sub(ended))
			p.Sync(ctx)
			ended = p.now()
		case <-verify.C:
			p.Inspect(ctx)
		case <-timer.C:
			p.chores(ctx)
		}
		timer.Stop()
	}
}

// untilChore returns the time until something has to be done without being asked: a retry, a look at what drains.
func (p *Proxier) untilChore() time.Duration {
	wait := p.cfg.SyncPeriod
	if next, ok := p.retries.next(); ok {
		wait = min(wait, next.Sub(p.now()))
	}
	switch {
	case p.round != nil:
		wait = 0
	case len(p.drains)+len(p.lingers) > 0:
		wait = min(wait, drainCheck)
	}
	if !p.flows.empty() {
		wait = min(wait, p.flows.next.Sub(p.now()))
	}
	if len(p.health.failing) > 0 {
		wait = min(wait, p.health.retryAt.Sub(p.now()))
	}
	return max(wait, 0)
}

func (p *Proxier) chores(ctx context.Context) {
	if next, ok := p.retries.next(); ok && !next.After(p.now()) {
		p.Sync(ctx)
	}
	if len(p.drains)+len(p.lingers) > 0 || p.round != nil || p.retries.isDue(object{drains: true}, p.now()) {
		p.drainSome(ctx)
	}
	if !p.flows.next.After(p.now()) {
		p.ExpireFlows(ctx)
	}
	p.serveHealthChecks(ctx)
}

func (p *Proxier) noteQueued() {
	for _, f := range p.plane.families() {
		p.metrics.LastQueued.WithLabelValues(f.String()).Set(float64(p.now().UnixNano()) / 1e9)
	}
}

// sleep waits, or returns early when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
