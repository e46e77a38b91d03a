package proxier

import (
	"context"
	"errors"
	"fmt"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// drainPart is how many virtual servers are asked for their connections at a time. When a node is lost, a thousand have
// something that drains, and changes must not wait until all of them are asked.
const drainPart = 32

// drainRound is a look at all that drains, under way.
type drainRound struct {
	left []ipvs.Key // virtual servers still to be asked
	read []*drained
	errs []error
}

// Drain deletes the draining real servers whose connections have ended or whose deadline has passed, and what is left of
// the addresses that have lingered long enough. Its cost is that of the draining ones.
func (p *Proxier) Drain(ctx context.Context) {
	for over := false; !over; {
		over = p.drainSome(ctx)
	}
}

// drainSome does a part of what Drain does, and reports whether it was the last one.
func (p *Proxier) drainSome(ctx context.Context) (over bool) {
	if p.round == nil {
		p.round = &drainRound{}
		for k := range p.stillDraining() {
			p.round.left = append(p.round.left, k)
		}
	}
	n := min(drainPart, len(p.round.left))
	p.readConns(ctx, p.round.left[:n])
	if p.round.left = p.round.left[n:]; len(p.round.left) > 0 {
		return false
	}
	round := p.round
	p.round = nil
	p.endDrains(ctx, p.stillIn(round), errors.Join(round.errs...))
	return true
}

// readConns reads the connection counts of what drains of virtual servers. Those that cannot be read leave their real servers
// to the deadline.
func (p *Proxier) readConns(ctx context.Context, keys []ipvs.Key) {
	for _, k := range keys {
		conns, err := p.plane.IPVS.Conns(ctx, k)
		if err != nil {
			f, _ := p.model.Frontend(k)
			p.round.errs = append(p.round.errs, fmt.Errorf("connections of virtual server %s of Service %s: %w", k, f.Service, err))
		}
		for _, r := range render.Draining(p.model, p.state, k) {
			known, ok := p.drains[drainKey{k, r.Dest}]
			if !ok {
				continue
			}
			d := &drained{drain: known, key: k, proto: p.model.Proto(k), real: r}
			var c ipvs.Conns
			if c, d.listed = conns[r.Dest]; d.listed {
				d.note(c)
			}
			p.round.read = append(p.round.read, d)
		}
	}
}

// stillIn returns those of a round that still drain: changes may have come between its parts.
func (p *Proxier) stillIn(round *drainRound) []*drained {
	now := map[drainKey]render.Drain{}
	for k, drains := range p.stillDraining() {
		for _, r := range drains {
			now[drainKey{k, r.Dest}] = r
		}
	}
	var out []*drained
	for _, d := range round.read {
		dk := drainKey{d.key, d.real.Dest}
		if r, ok := now[dk]; ok && p.drains[dk] == d.drain {
			d.real = r
			out = append(out, d)
		}
	}
	return out
}

// endDrains deletes what has nothing left to wait for. The error is what could not be read.
func (p *Proxier) endDrains(ctx context.Context, draining []*drained, err error) {
	if p.plane.NFT != nil {
		err = errors.Join(err, p.watch(ctx, draining))
	}
	p.noteDrainCheck(ctx, err)
	var plan render.Plan
	for _, d := range draining {
		if !d.over() && p.now().Before(d.deadline) {
			continue
		}
		f, _ := p.model.Frontend(d.key)
		op := ipvs.Op{Verb: ipvs.DeleteReal, Key: d.key, Real: ipvs.RealServer{Dest: d.real.Dest}}
		plan = append(plan, render.Op{Phase: render.PhaseDrain, Service: f.Service, Key: d.key, IPVS: &op})
	}
	p.apply(ctx, plan, nil)
	p.stillDraining() // forgets those that are gone
	p.metrics.Draining.Set(float64(len(p.drains)))
	p.forget(ctx)
	p.showFailing()
}

// stillDraining groups the draining real servers by virtual server, and forgets those that came back or went with
// their virtual server.
func (p *Proxier) stillDraining() map[ipvs.Key][]render.Drain {
	known := map[ipvs.Key]map[ipvs.Dest]render.Drain{}
	out := map[ipvs.Key][]render.Drain{}
	for dk := range p.drains {
		if known[dk.key] == nil {
			known[dk.key] = map[ipvs.Dest]render.Drain{}
			for _, d := range render.Draining(p.model, p.state, dk.key) {
				known[dk.key][d.Dest] = d
			}
		}
		d, ok := known[dk.key][dk.dest]
		if !ok {
			delete(p.drains, dk)
			continue
		}
		out[dk.key] = append(out[dk.key], d)
	}
	return out
}
