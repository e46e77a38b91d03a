package proxier

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// prepare makes sysctls, sets and rules what they should be, for each family apart. A family counts as ready once
// its rules are in place. All of that is of parts of the kernel that do not know of each other, and most of it waits for a
// process to end, so they go side by side; the tables come last, since rules may be in nf_tables too.
func (p *Proxier) prepare(ctx context.Context) error {
	families := p.plane.families()
	want, ready, errs := make([]iptables.Ruleset, len(families)), make([]bool, len(families)), make([]error, len(families))
	var sysctls, onLoopback error
	var parts sync.WaitGroup
	for i, f := range families {
		want[i] = p.skeleton(f)
		parts.Go(func() { ready[i], errs[i] = p.prepareFamily(ctx, f, want[i]) })
	}
	parts.Go(func() { sysctls = p.prepareSysctls(ctx) })
	parts.Go(func() { onLoopback = p.prepareLoopback(ctx) })
	parts.Wait()
	for i, f := range families {
		if ready[i] {
			p.rules[f] = want[i]
		}
	}
	return errors.Join(append(errs, sysctls, onLoopback, p.prepareTables(ctx))...)
}

func (p *Proxier) prepareSysctls(ctx context.Context) error {
	if p.plane.Sysctls == nil {
		return nil
	}
	changed, err := p.plane.Sysctls(ctx)
	p.repaired(ctx, "sysctl", changed)
	return err
}

// prepareLoopback puts in place what leads loopback to node ports, or takes away what a daemon with other flags left.
func (p *Proxier) prepareLoopback(ctx context.Context) error {
	if p.plane.Loopback == nil {
		return nil
	}
	if !p.cfg.Render.Loopback {
		return p.plane.Loopback.Remove(ctx)
	}
	missing, err := p.plane.Loopback.Ensure(ctx)
	p.repaired(ctx, "loopback", missing)
	return err
}

// wantTables returns the tables of nf_tables for what is known of the Node and of what Services use.
func (p *Proxier) wantTables() []nftables.Table {
	return render.Tables(p.facts, p.cfg.Render, p.uses.known())
}

// prepareTables makes the tables of nf_tables what they should be. Families are exposed without them too: what is
// lacking then is lacking in kernels without nf_tables.
func (p *Proxier) prepareTables(ctx context.Context) error {
	if p.plane.NFT == nil {
		return nil
	}
	want := p.wantTables()
	same := reflect.DeepEqual(p.tables, want)
	generation, err := p.plane.NFT.Generation(ctx)              // before looking: what changes meanwhile is found next time
	clean := nftPace{known: err == nil, generation: generation} // whatever is wrong with it, Ensure meets too
	if clean.known && p.pace.tables == clean && same {
		return nil
	}
	p.pace.tables = nftPace{}
	repaired, err := p.plane.NFT.Ensure(ctx, want)
	if same {
		p.repaired(ctx, "nftables", repaired)
	} else if len(repaired) > 0 {
		klog.FromContext(ctx).V(2).Info("Changed tables of nf_tables", "changes", repaired)
	}
	if err != nil {
		return err
	}
	p.tables = want
	if len(repaired) == 0 {
		p.pace.tables = clean
	}
	return nil
}

// prepareFamily makes the sets and rules of a family what they should be. One set that another program has made with
// another type costs only what needs that set: its entries are refused, and what the rules find in it matches nothing of
// ours, so that restricted frontends are closed and not open. It reports whether the rules are in place.
func (p *Proxier) prepareFamily(ctx context.Context, f lb.Family, want iptables.Ruleset) (ready bool, err error) {
	if err = p.plane.Sets.Ensure(ctx, render.Sets(f)); err != nil {
		err = fmt.Errorf("sets of %s: %w", f, err)
		if !errors.Is(err, iptables.ErrSetType) {
			return false, err
		}
	}
	differences, checked := p.plane.Rules[f].Check(ctx, want)
	if checked != nil {
		return false, errors.Join(err, fmt.Errorf("rules of %s: %w", f, checked))
	}
	if len(differences) > 0 {
		if applied := p.plane.Rules[f].Apply(ctx, want); applied != nil {
			return false, errors.Join(err, fmt.Errorf("rules of %s: %w", f, applied))
		}
		p.repaired(ctx, "rules", differences)
	}
	return true, err
}
