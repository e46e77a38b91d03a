package proxier

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// prepare makes sysctls, sets and rules what they should be, for each family apart. A family counts as ready once
// its rules are in place.
func (p *Proxier) prepare(ctx context.Context) error {
	p.lookForSchedulers(ctx)
	var errs []error
	if p.plane.Sysctls != nil {
		changed, err := p.plane.Sysctls(ctx)
		p.repaired(ctx, "sysctl", changed)
		errs = append(errs, err)
	}
	for _, f := range p.plane.families() {
		errs = append(errs, p.prepareFamily(ctx, f))
	}
	return errors.Join(append(errs, p.prepareLoopback(ctx), p.prepareTables(ctx))...)
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

// prepareTables makes the tables of nf_tables what they should be. Families are exposed without them too: what is
// lacking then is lacking in kernels without nf_tables.
func (p *Proxier) prepareTables(ctx context.Context) error {
	if p.plane.NFT == nil {
		return nil
	}
	want := render.Tables(p.facts, p.cfg.Render)
	generation, err := p.plane.NFT.Generation(ctx)              // before looking: what changes meanwhile is found next time
	clean := nftPace{known: err == nil, generation: generation} // whatever is wrong with it, Ensure meets too
	if clean.known && p.pace.tables == clean && reflect.DeepEqual(p.tables, want) {
		return nil
	}
	p.pace.tables = nftPace{}
	repaired, err := p.plane.NFT.Ensure(ctx, want)
	p.repaired(ctx, "nftables", repaired)
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
// ours, so that restricted frontends are closed and not open.
func (p *Proxier) prepareFamily(ctx context.Context, f lb.Family) (err error) {
	if err = p.plane.Sets.Ensure(ctx, render.Sets(f)); err != nil {
		err = fmt.Errorf("sets of %s: %w", f, err)
		if !errors.Is(err, iptables.ErrSetType) {
			return err
		}
	}
	want := render.Skeleton(f, p.facts.Node, p.cfg.Render)
	differences, checked := p.plane.Rules[f].Check(ctx, want)
	if checked != nil {
		return errors.Join(err, fmt.Errorf("rules of %s: %w", f, checked))
	}
	if len(differences) > 0 {
		if applied := p.plane.Rules[f].Apply(ctx, want); applied != nil {
			return errors.Join(err, fmt.Errorf("rules of %s: %w", f, applied))
		}
		p.repaired(ctx, "rules", differences)
	}
	p.rules[f] = want
	return err
}
