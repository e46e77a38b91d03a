package proxier

import (
	"context"
	"sync"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// prepareAhead does what takes time and does not depend on Services while these are still being listed: it loads kernel
// modules, makes the sets and the settings, and looks at the rules or, on a node that serves nothing yet, makes them. The
// first verification looks at all of it again and finds it as it should be; where iptables is that of nf_tables, without
// starting a process.
//
// A node in service keeps its rules until the Services are known: those of another version or other flags may need set
// entries that are not there before. Failures are left to the verification too: it meets and reports them again.
func (p *Proxier) prepareAhead(ctx context.Context) {
	if p.cfg.Render.Local.NodeCIDR {
		return // the rules depend on the Node
	}
	families := p.plane.families()
	made := make([]bool, len(families))
	var parts sync.WaitGroup
	for i, f := range families {
		parts.Go(func() { made[i] = p.prepareFamilyAhead(ctx, f) })
	}
	if p.plane.Sysctls != nil {
		parts.Go(func() { _, _ = p.plane.Sysctls(ctx) })
	}
	parts.Wait()
	// What was made is looked at when both families are done: each change makes every earlier look old.
	for i, f := range families {
		if made[i] {
			parts.Go(func() { _, _ = p.plane.Rules[f].Check(ctx, p.skeleton(f)) })
		}
	}
	parts.Wait()
}

// prepareFamilyAhead reports whether it made rules.
func (p *Proxier) prepareFamilyAhead(ctx context.Context, f lb.Family) bool {
	sets := render.Sets(f)
	if err := p.plane.Sets.Ensure(ctx, sets); err != nil {
		return false
	}
	differences, err := p.plane.Rules[f].Check(ctx, p.skeleton(f))
	if err != nil || len(differences) == 0 || !p.allEmpty(ctx, sets) {
		return false
	}
	return p.plane.Rules[f].Apply(ctx, p.skeleton(f)) == nil
}

// skeleton returns the rules of a family for what is known of the Node.
func (p *Proxier) skeleton(f lb.Family) iptables.Ruleset {
	return render.Skeleton(f, p.facts.Node, p.cfg.Render)
}

// allEmpty reports whether the sets are known to have no entries: nothing is served, then.
func (p *Proxier) allEmpty(ctx context.Context, sets []iptables.Set) bool {
	entries, err := p.plane.Sets.Count(ctx, sets)
	if err != nil {
		return false
	}
	for _, n := range entries {
		if n > 0 {
			return false
		}
	}
	return true
}
