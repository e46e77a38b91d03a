package proxier

import (
	"context"
	"errors"
	"fmt"

	"github.com/kube-hop/kube-hop/proxier/render"
)

// Cleanup takes away everything of ours and nothing else: it stops being served in the order in which removal is
// safe, then the rules go, then the sets that they referred to. Whatever fails, the rest is still tried.
func (p *Proxier) Cleanup(ctx context.Context) error {
	state, err := p.read(ctx)
	if err != nil {
		return err
	}
	p.sortOut(state)
	var errs []error
	_, failures := p.plane.run(ctx, render.Remove(state, p.cfg.Render))
	for _, f := range failures {
		if !errors.Is(f.err, errWithheld) {
			errs = append(errs, f.err)
		}
	}
	for _, f := range p.plane.families() {
		// A rule's text is not looked at when it is removed with its chain, so the Node need not be known.
		if err := p.plane.Rules[f].Remove(ctx, p.skeleton(f)); err != nil {
			errs = append(errs, fmt.Errorf("rules of %s: %w", f, err))
		}
		if err := p.plane.Sets.Destroy(ctx, render.Sets(f)); err != nil {
			errs = append(errs, fmt.Errorf("sets of %s: %w", f, err))
		}
	}
	if p.plane.Loopback != nil {
		errs = append(errs, p.plane.Loopback.Remove(ctx))
	}
	if p.plane.NFT != nil {
		errs = append(errs, p.plane.NFT.Remove(ctx, p.wantTables()))
	}
	return errors.Join(errs...)
}
