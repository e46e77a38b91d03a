package proxier

import (
	"context"

	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

const (
	// chunk is how many frontends are planned and applied at a time when everything is.
	chunk = 512
	// firstNamespace and firstService name the Service that goes first then: nothing else on a new node comes up
	// before the API server is reached through it.
	firstNamespace, firstService = "default", "kubernetes"
)

// converge plans and applies what is touched, and returns how many operations took effect.
func (p *Proxier) converge(ctx context.Context, touched []render.Touched) int {
	if len(touched) != 1 || len(touched[0].Keys) <= chunk {
		return p.apply(ctx, render.Diff(p.model, p.state, touched...), touched)
	}
	parts := p.model.Chunks(touched[0], chunk, lb.Name{Namespace: firstNamespace, Name: firstService})
	n := 0
	plan := p.withhold(ctx, render.Diff(p.model, p.state, parts[0]))
	for i, part := range parts {
		next := p.planNext(plan, parts[i+1:])
		done, failures := p.plane.run(ctx, plan)
		ahead := <-next
		n += p.book(ctx, done, failures, []render.Touched{part})
		if i+1 == len(parts) {
			break
		}
		if !ahead.holds {
			ahead.plan = render.Diff(p.model, p.state, parts[i+1])
		}
		plan = p.withhold(ctx, ahead.plan)
	}
	return n
}

// ahead is a plan that was made while the one before it ran. It holds if it is the same as one made afterwards.
type ahead struct {
	plan  render.Plan
	holds bool
}

// planNext plans the first of the parts while the plan before it runs, so that planning takes no time of its own where there
// is a second processor. Until the answer is taken, nobody may change model or state.
//
// Parts have no frontend in common, so what is planned for one seldom depends on another. It does where they share an
// address or a view, and then all is planned anew, as is the part of addresses alone.
func (p *Proxier) planNext(running render.Plan, parts []render.Touched) <-chan ahead {
	answer := make(chan ahead, 1)
	if len(running) == 0 || len(parts) == 0 || len(parts[0].Keys) == 0 { // nothing to wait for, nothing to plan, or all to look at
		answer <- ahead{}
		return answer
	}
	go func() {
		plan := render.Diff(p.model, p.state, parts[0])
		answer <- ahead{plan, render.Independent(running, plan)}
	}()
	return answer
}

// apply runs a plan and keeps the books. It returns how many operations took effect.
func (p *Proxier) apply(ctx context.Context, plan render.Plan, touched []render.Touched) int {
	done, failures := p.plane.run(ctx, p.withhold(ctx, plan))
	return p.book(ctx, done, failures, touched)
}

// book keeps the books: the shadow holds what the kernel accepted, the retry queue what it did not. It returns how many
// operations took effect.
func (p *Proxier) book(ctx context.Context, pieces []render.Plan, failures []failure, touched []render.Touched) int {
	n := 0
	for _, done := range pieces {
		p.state.Record(done...)
		p.flows.note(p.state, done)
		p.count(done)
		n += len(done)
		if p.Observe != nil {
			p.Observe(done)
		}
	}
	failing := p.noteFailures(ctx, failures)
	for _, t := range touched {
		for _, k := range t.Keys {
			p.settle(object{key: k}, failing)
			p.noteDrains(k)
			if f, ok := p.model.Frontend(k); ok {
				p.state.Share(k, f.Virtual.Real)
			}
		}
		for _, v := range t.Prefixes {
			p.settle(object{vip: v}, failing)
			p.noteLingers(v)
		}
	}
	return n
}
