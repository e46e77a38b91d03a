package proxier

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// held is what the kernel holds, as far as it could be prepared and read.
type held struct {
	state              render.State // still with the virtual servers of others
	unprepared, unread error
	preparing, reading time.Duration
}

// read returns what the kernel holds. The kinds of state do not know of each other and are read side by side.
func (p *Proxier) read(ctx context.Context) (render.State, error) {
	var (
		parts                       sync.WaitGroup
		entries                     iptables.SetState
		onLoopback                  map[iptables.Entry]struct{}
		elements                    nftables.State
		kernel                      ipvs.State
		inSets, inLoop, inNFT, inVS error
	)
	parts.Go(func() {
		var sets []iptables.Set
		for _, f := range p.plane.families() {
			sets = append(sets, render.Sets(f)...)
		}
		entries, inSets = p.plane.Sets.Dump(ctx, sets)
	})
	if p.plane.Loopback != nil {
		parts.Go(func() { onLoopback, inLoop = p.plane.Loopback.Dump(ctx) })
	}
	if p.plane.NFT != nil {
		parts.Go(func() { elements, inNFT = p.plane.NFT.Dump(ctx, p.wantTables()) })
	}
	kernel, inVS = p.plane.IPVS.Dump(ctx)
	parts.Wait()
	if err := errors.Join(reading("sets", inSets), reading("node ports on loopback", inLoop), reading("nf_tables", inNFT),
		reading("virtual servers", inVS)); err != nil {
		return render.State{}, err
	}
	if p.plane.Loopback != nil {
		entries[loopback.SetName] = onLoopback
	}
	return render.StateOf(kernel, entries, elements), nil
}

// sortOut leaves out virtual servers of others, which are so never touched.
func (p *Proxier) sortOut(found render.State) {
	foreign := map[ipvs.Key]struct{}{}
	for k := range found.IPVS.Virtual {
		if !p.ours(k, found) {
			delete(found.IPVS.Virtual, k)
			foreign[k] = struct{}{}
		}
	}
	p.setForeign(foreign)
}

// reading adds to an error what was to be read.
func reading(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("reading %s: %w", what, err)
}

// ours reports whether a virtual server in the kernel is one of ours: recorded so in the sets, or in our shadow, or
// wanted by a Service and not excluded.
func (p *Proxier) ours(k ipvs.Key, found render.State) bool {
	if _, known := p.state.IPVS.Virtual[k]; known {
		return true
	}
	if found.RecordsKey(k) {
		return true
	}
	if slices.ContainsFunc(p.cfg.ExcludeCIDRs, func(c netip.Prefix) bool { return c.Contains(k.Addr) }) {
		return false
	}
	if _, foreign := p.foreign[k]; foreign {
		return false // it was before a Service wanted it
	}
	_, wanted := p.model.Frontend(k)
	return wanted || k.Mark == 0 && found.Guards(k.Addr)
}
