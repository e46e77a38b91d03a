package proxier

import (
	"context"

	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

const (
	// chunk is how many frontends are planned and applied at a time when everything is.
	chunk = 256
	// firstNamespace and firstService name the Service that goes first then: nothing else on a new node comes up
	// before the API server is reached through it.
	firstNamespace, firstService = "default", "kubernetes"
)

// converge plans and applies what is touched, and returns how many operations took effect.
//
// Of a large cluster, one part is applied while the books of the part before are kept and the next one is planned: these take
// as long as the kernel, and so no time of their own where there is a second processor.
func (p *Proxier) converge(ctx context.Context, touched []render.Touched) int {
	if len(touched) != 1 || len(touched[0].Keys) <= chunk {
		return p.apply(ctx, render.Diff(p.model, p.state, touched...), touched)
	}
	parts := p.model.Chunks(touched[0], chunk, lb.Name{Namespace: firstNamespace, Name: firstService})
	n := 0
	plan := p.withhold(ctx, render.Diff(p.model, p.state, parts[0]))
	var last applied // not in the books yet
	for i, part := range parts {
		running := p.start(ctx, plan, part)
		n += p.book(ctx, last)
		next, holds := p.planAhead(plan, parts[i+1:])
		last = <-running
		if i+1 == len(parts) {
			break
		}
		if !holds {
			n += p.book(ctx, last)
			last = applied{}
			next = render.Diff(p.model, p.state, parts[i+1])
		}
		plan = p.withhold(ctx, next)
	}
	return n + p.book(ctx, last)
}

// applied is what became of a plan for what was touched.
type applied struct {
	done     []render.Plan
	failures []failure
	touched  []render.Touched
}

// start applies a plan in a goroutine of its own, and gives the answer when it has.
func (p *Proxier) start(ctx context.Context, plan render.Plan, part render.Touched) <-chan applied {
	answer := make(chan applied, 1)
	go func() {
		done, failures := p.plane.run(ctx, plan)
		answer <- applied{done, failures, []render.Touched{part}}
	}()
	return answer
}

// planAhead plans the first of the parts while the plan for the part before is being applied, and reports whether that is
// what would be planned afterwards. Parts have no frontend in common, so it seldom is not: where they share an address or a
// view. It is not tried where the time that it could save is short, nor for the part of addresses alone, which depends on
// all others.
func (p *Proxier) planAhead(running render.Plan, parts []render.Touched) (next render.Plan, holds bool) {
	if len(running) < chunk || len(parts) == 0 || len(parts[0].Keys) == 0 {
		return nil, false
	}
	next = render.Diff(p.model, p.state, parts[0])
	return next, render.Independent(running, next)
}

// apply runs a plan and keeps the books. It returns how many operations took effect.
func (p *Proxier) apply(ctx context.Context, plan render.Plan, touched []render.Touched) int {
	done, failures := p.plane.run(ctx, p.withhold(ctx, plan))
	return p.book(ctx, applied{done, failures, touched})
}

// book keeps the books: the shadow holds what the kernel accepted, the retry queue what it did not. It returns how many
// operations took effect.
func (p *Proxier) book(ctx context.Context, a applied) int {
	n := 0
	for _, done := range a.done {
		p.state.Record(done...)
		p.flows.note(p.state, done)
		p.count(done)
		n += len(done)
		if p.Observe != nil {
			p.Observe(done)
		}
	}
	failing := p.noteFailures(ctx, a.failures)
	for _, t := range a.touched {
		for _, k := range t.Keys {
			p.settle(object{key: k}, failing)
			p.noteDrains(k)
			p.noteLingers(object{key: k})
			if f, ok := p.model.Frontend(k); ok {
				p.state.Share(k, f.Virtual.Real)
			}
		}
		for _, v := range t.Prefixes {
			p.settle(object{vip: v}, failing)
			p.noteLingers(object{vip: v})
		}
	}
	return n
}
