package proxier

import (
	"context"
	"errors"

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
	silent := map[nftables.SetID]map[nftables.Key]bool{}
	var errs []error
	for set, k := range keys {
		var err error
		silent[set], err = p.plane.NFT.Holds(ctx, set, k...)
		errs = append(errs, err)
	}
	for op, drains := range watched {
		still, known := silent[op.Set][op.Key]
		for _, d := range drains {
			d.unsure = !known
			if known && !still {
				d.watched, d.unanswered = false, 0
			}
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
	refused := map[nftables.Op]bool{}
	var errs []error
	for _, e := range p.plane.NFT.Apply(ctx, ops) {
		refused[e.Op] = true
		errs = append(errs, e)
	}
	for op, drains := range fresh {
		for _, d := range drains {
			if d.unsure = refused[op]; !d.unsure {
				d.watched, d.unanswered = true, 1
			}
		}
	}
	return errors.Join(errs...)
}
