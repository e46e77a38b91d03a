package proxier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// watch finds out which suspects among the draining endpoints are dead. An endpoint that no slice names any more may go on
// with its connections, if it only left the Service; but where clients get no answer it is dead, and deleting its real
// server ends their connections so that they can begin new ones, from the same source port too.
//
// What IPVS counts is only a suspicion: of two connections from one client port to one endpoint, through two virtual
// servers, it takes the replies of the older one for those of the newer one, and counts them there. So the endpoint is
// watched before it is given up. All suspects are asked about together, and only then others put under watch: the same
// endpoint may be behind several virtual servers, and what one heard must not be lost by watching it for another.
func (p *Proxier) watch(ctx context.Context, draining []*drained) error {
	watched, fresh := map[nftables.Op][]*drained{}, map[nftables.Op][]*drained{}
	for _, d := range draining {
		op := render.WatchEndpoint(d.proto, d.real.Dest)
		switch {
		case !d.suspect():
			d.watched = false
		case d.watched:
			watched[op] = append(watched[op], d)
		default:
			fresh[op] = append(fresh[op], d)
		}
	}
	return errors.Join(p.listen(ctx, watched), p.beginWatch(ctx, fresh))
}

// listen asks which of the watched endpoints have been heard since.
func (p *Proxier) listen(ctx context.Context, watched map[nftables.Op][]*drained) error {
	keys := map[nftables.SetID][]nftables.Key{}
	for op := range watched {
		keys[op.Set] = append(keys[op.Set], op.Key)
	}
	silent, why := map[nftables.SetID]map[nftables.Key]bool{}, map[nftables.SetID]error{}
	for set, k := range keys {
		silent[set], why[set] = p.plane.NFT.Holds(ctx, set, k...)
	}
	unsure := map[nftables.SetID][]string{}
	for op, drains := range watched {
		still, known := silent[op.Set][op.Key]
		for _, d := range drains {
			if d.unsure = !known; d.unsure {
				unsure[op.Set] = append(unsure[op.Set], p.describe(d))
			}
			if known && !still {
				d.watched, d.unanswered = false, 0
			}
		}
	}
	var errs []error
	for set, err := range why {
		if err != nil {
			slices.Sort(unsure[set])
			errs = append(errs, fmt.Errorf("listening for %s: %w", strings.Join(unsure[set], ", "), err))
		}
	}
	return errors.Join(errs...)
}

// beginWatch puts endpoints under watch, which counts their silence from now on.
func (p *Proxier) beginWatch(ctx context.Context, fresh map[nftables.Op][]*drained) error {
	ops := make([]nftables.Op, 0, len(fresh))
	for op := range fresh {
		ops = append(ops, op)
	}
	refused := map[nftables.Op]error{}
	for _, e := range p.plane.NFT.Apply(ctx, ops) {
		refused[e.Op] = e
	}
	var errs []error
	for op, drains := range fresh {
		for _, d := range drains {
			if d.unsure = refused[op] != nil; d.unsure {
				errs = append(errs, fmt.Errorf("watching %s: %w", p.describe(d), refused[op]))
			} else {
				d.watched, d.unanswered = true, 1
			}
		}
	}
	return errors.Join(errs...)
}

// describe names what drains, for messages.
func (p *Proxier) describe(d *drained) string {
	f, _ := p.model.Frontend(d.key)
	return fmt.Sprintf("endpoint %s of virtual server %s of Service %s", d.real.Dest, d.key, f.Service)
}
