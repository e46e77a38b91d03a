package proxier

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// drainCheck is how often the connection counts of draining real servers are read.
const drainCheck = time.Second

// drainKey is one real server that waits for its connections to end.
type drainKey struct {
	key  ipvs.Key
	dest ipvs.Dest
}

// noteDrains enters the draining real servers of a virtual server; those that drain already keep their deadline.
// Since a draining real server is known by its weight alone, draining survives a restart (with a new deadline).
func (p *Proxier) noteDrains(k ipvs.Key) {
	for _, d := range render.Draining(p.model, p.state, k) {
		dk := drainKey{k, d}
		if _, ok := p.drains[dk]; !ok {
			p.drains[dk] = p.now().Add(p.cfg.DrainTimeout)
		}
	}
}

// Drain deletes the draining real servers whose connections have ended or whose deadline has passed. Its cost is
// that of the draining ones.
func (p *Proxier) Drain(ctx context.Context) {
	var plan render.Plan
	for k, dests := range p.stillDraining() {
		conns, err := p.plane.IPVS.Conns(ctx, k)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Connections of draining real servers could not be read", "virtualServer", k)
			continue
		}
		f, _ := p.model.Frontend(k)
		for _, d := range dests {
			// One that is not listed says nothing about its connections; the next verification finds out.
			c, listed := conns[d]
			if (!listed || c.Active+c.Inactive > 0) && p.now().Before(p.drains[drainKey{k, d}]) {
				continue
			}
			op := ipvs.Op{Verb: ipvs.DeleteReal, Key: k, Real: ipvs.RealServer{Dest: d}}
			plan = append(plan, render.Op{Phase: render.PhaseDrain, Service: f.Service, Key: k, IPVS: &op})
		}
	}
	p.apply(ctx, plan, nil)
	p.stillDraining() // forgets those that are gone
	p.metrics.Draining.Set(float64(len(p.drains)))
}

// stillDraining groups the draining real servers by virtual server, and forgets those that came back or went with
// their virtual server.
func (p *Proxier) stillDraining() map[ipvs.Key][]ipvs.Dest {
	known := map[ipvs.Key]map[ipvs.Dest]bool{}
	out := map[ipvs.Key][]ipvs.Dest{}
	for dk := range p.drains {
		if known[dk.key] == nil {
			known[dk.key] = map[ipvs.Dest]bool{}
			for _, d := range render.Draining(p.model, p.state, dk.key) {
				known[dk.key][d] = true
			}
		}
		if !known[dk.key][dk.dest] {
			delete(p.drains, dk)
			continue
		}
		out[dk.key] = append(out[dk.key], dk.dest)
	}
	return out
}
