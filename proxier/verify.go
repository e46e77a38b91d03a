package proxier

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// Verify reads the kernel, compares it with the shadow and with what is wanted, and puts right what differs. The
// first one adopts what the kernel already holds; each later one counts what it repairs as drift.
func (p *Proxier) Verify(ctx context.Context) {
	start := p.now()
	batch := p.Tracker.Take()
	touched, prepared := p.updateAndPrepare(ctx, batch)
	ready := p.now()

	found := 0
	state, err := p.read(ctx)
	known := p.now()
	switch {
	case err == nil:
		p.countDrift(ctx, state)
		found = len(state.IPVS.Virtual)
		p.state = state
		if !p.adopted {
			p.model.Adopt(state)
		}
		touched = []render.Touched{p.model.Everything(state)}
	case !p.adopted:
		p.verifyFailed(ctx, errors.Join(prepared, err))
		return // what the kernel holds is not known: touching it could cut what works
	}
	done := p.converge(ctx, touched)
	if !p.adopted {
		p.flows.noteAll(p.state) // while no daemon ran, nobody cleaned up
		klog.FromContext(ctx).Info("Adopted the kernel's state", "virtualServers", found,
			"services", p.model.Len(), "operations", done, "took", p.now().Sub(start),
			"preparing", ready.Sub(start), "reading", known.Sub(ready), "programming", p.now().Sub(known))
	}
	p.adopted = true
	if err := errors.Join(prepared, err); err != nil {
		p.verifyFailed(ctx, err)
	} else {
		p.retries.succeeded(object{})
	}
	p.pace.noteFull(p.now(), p.now().Sub(start))
	p.finish(ctx, start, batch.Changes, done)
}

// updateAndPrepare does both side by side: preparing waits for the kernel and depends on nothing but the facts.
func (p *Proxier) updateAndPrepare(ctx context.Context, b Batch) (touched []render.Touched, failed error) {
	p.lookForSchedulers(ctx)
	p.learn(ctx, b)
	prepared := make(chan error, 1)
	go func() { prepared <- p.prepare(ctx) }()
	touched = p.render(ctx, b)
	return touched, <-prepared
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

// read returns what the kernel holds of ours. Virtual servers of others are left out, and so never touched. The kinds of
// state do not know of each other and are read side by side.
func (p *Proxier) read(ctx context.Context) (render.State, error) {
	var (
		parts                       sync.WaitGroup
		entries                     iptables.SetState
		onLoopback                  map[iptables.Entry]struct{}
		elements                    nftables.State
		kernel                      ipvs.State
		inSets, inLoop, inNFT, inVS error
	)
	parts.Go(func() {
		var sets []iptables.Set
		for _, f := range p.plane.families() {
			sets = append(sets, render.Sets(f)...)
		}
		entries, inSets = p.plane.Sets.Dump(ctx, sets)
	})
	if p.plane.Loopback != nil {
		parts.Go(func() { onLoopback, inLoop = p.plane.Loopback.Dump(ctx) })
	}
	if p.plane.NFT != nil {
		parts.Go(func() { elements, inNFT = p.plane.NFT.Dump(ctx, render.Tables(p.facts, p.cfg.Render)) })
	}
	kernel, inVS = p.plane.IPVS.Dump(ctx)
	parts.Wait()
	if err := errors.Join(reading("sets", inSets), reading("node ports on loopback", inLoop), reading("nf_tables", inNFT),
		reading("virtual servers", inVS)); err != nil {
		return render.State{}, err
	}
	if p.plane.Loopback != nil {
		entries[loopback.SetName] = onLoopback
	}
	found := render.StateOf(kernel, entries, elements)
	foreign := map[ipvs.Key]struct{}{}
	for k := range kernel.Virtual {
		if !p.ours(k, found) {
			delete(kernel.Virtual, k)
			foreign[k] = struct{}{}
		}
	}
	p.setForeign(foreign)
	return found, nil
}

// reading adds to an error what was to be read.
func reading(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("reading %s: %w", what, err)
}

// ours reports whether a virtual server in the kernel is one of ours: recorded so in the sets, or in our shadow, or
// wanted by a Service and not excluded.
func (p *Proxier) ours(k ipvs.Key, found render.State) bool {
	if _, known := p.state.IPVS.Virtual[k]; known {
		return true
	}
	if found.RecordsKey(k) {
		return true
	}
	if slices.ContainsFunc(p.cfg.ExcludeCIDRs, func(c netip.Prefix) bool { return c.Contains(k.Addr) }) {
		return false
	}
	if _, foreign := p.foreign[k]; foreign {
		return false // it was before a Service wanted it
	}
	_, wanted := p.model.Frontend(k)
	return wanted || k.Mark == 0 && found.Guards(k.Addr)
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
