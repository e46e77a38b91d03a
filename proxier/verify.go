package proxier

import (
	"context"
	"errors"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// Verify reads the kernel, compares it with the shadow and with what is wanted, and puts right what differs. The
// first one adopts what the kernel already holds; each later one counts what it repairs as drift.
func (p *Proxier) Verify(ctx context.Context) {
	start := p.now()
	batch := p.Tracker.Take()
	touched, held := p.renderAndRead(ctx, batch)
	known := p.now()

	found := 0
	state, err := held.state, held.unread
	switch {
	case err == nil:
		p.sortOut(state)
		p.countDrift(ctx, state)
		found = len(state.IPVS.Virtual)
		p.state = state
		if !p.adopted {
			p.model.Adopt(state)
		}
		touched = []render.Touched{p.model.Everything(state)}
	case !p.adopted:
		p.verifyFailed(ctx, errors.Join(held.unprepared, err))
		return // what the kernel holds is not known: touching it could cut what works
	}
	p.needChains(ctx)
	done := p.converge(ctx, touched)
	if !p.adopted {
		p.flows.noteAll(p.state) // while no daemon ran, nobody cleaned up
		klog.FromContext(ctx).Info("Adopted the kernel's state", "virtualServers", found,
			"services", p.model.Len(), "operations", done, "took", p.now().Sub(start),
			"preparing", held.preparing, "reading", held.reading, "programming", p.now().Sub(known))
	}
	p.adopted = true
	if err := errors.Join(held.unprepared, err); err != nil {
		p.verifyFailed(ctx, err)
	} else {
		p.retries.succeeded(object{})
	}
	p.pace.noteFull(p.now(), p.now().Sub(start))
	p.finish(ctx, start, batch.Changes, done)
}

// renderAndRead prepares and reads the kernel, and meanwhile renders: the kernel's side takes time and depends on nothing but
// the facts. What is read is what preparing has left, since that replaces sets and tables that are not what they should be.
func (p *Proxier) renderAndRead(ctx context.Context, b Batch) (touched []render.Touched, h held) {
	p.lookForSchedulers(ctx)
	p.endUses()
	p.learn(ctx, b)
	start := p.now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.unprepared = p.prepare(ctx)
		ready := p.now()
		h.state, h.unread = p.read(ctx)
		h.preparing, h.reading = ready.Sub(start), p.now().Sub(ready)
	}()
	touched = p.render(ctx, b)
	<-done
	return touched, h
}

func (p *Proxier) verifyFailed(ctx context.Context, err error) {
	klog.FromContext(ctx).Error(err, "Verification of the kernel's state is incomplete; it will be retried")
	p.retries.failed(object{}, lb.Name{}, p.now())
	p.metrics.Failing.Set(float64(len(p.retries.items)))
}

// repaired logs and counts drift, once the kernel's state has been adopted: before that it is set-up.
func (p *Proxier) repaired(ctx context.Context, kind string, lines []string) {
	if !p.adopted {
		return
	}
	for _, l := range lines {
		p.metrics.Repairs.WithLabelValues(kind).Inc()
		klog.FromContext(ctx).Info("Repaired what others changed", "kind", kind, "difference", l)
	}
}

// countDrift counts the differences between the shadow and what was found: what others changed since.
func (p *Proxier) countDrift(ctx context.Context, found render.State) {
	if !p.adopted {
		return
	}
	drift := render.Drift(p.state, found)
	for _, d := range drift {
		p.repaired(ctx, d.Kind, d.Lines)
	}
}
