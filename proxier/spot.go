package proxier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/proxier/render"
)

const (
	// verifyShare bounds the time that full verifications take: they rest for this many times as long as the last one
	// took, 0.25 %. On small nodes that is less than the sync period.
	verifyShare = 400
	// verifyRest bounds the rest, whatever the size of the node.
	verifyRest = 3 * time.Hour
	// spotKeys is how many virtual servers are compared when it is not yet time for all of them. Few, since one of IPv6 takes
	// two requests by netlink.
	spotKeys = 8
)

// pace decides how much of the kernel's state a periodic verification reads.
type pace struct {
	full time.Time  // when everything is to be read again
	left []ipvs.Key // virtual servers that spot checks have not read in this round
	// elements and tables are when those of nf_tables were last found as they were left.
	elements, tables nftPace
}

// nftPace is when something of nf_tables was found as it was left. Until the generation of the kernel's tables changes it
// is so still: whoever changes them, this daemon included, changes it.
type nftPace struct {
	known      bool
	generation uint32
}

// noteFull notes a verification of everything, which took so long.
func (c *pace) noteFull(end time.Time, took time.Duration) {
	c.full, c.left = end.Add(min(verifyShare*took, verifyRest)), nil
}

// next returns the virtual servers to read now; each is returned once before any is again.
func (c *pace) next(all map[ipvs.Key]ipvs.VirtualServer) []ipvs.Key {
	if len(c.left) == 0 {
		c.left = make([]ipvs.Key, 0, len(all))
		for k := range all {
			c.left = append(c.left, k)
		}
	}
	n := min(spotKeys, len(c.left))
	keys := c.left[len(c.left)-n:]
	c.left = c.left[:len(c.left)-n]
	return keys
}

// Inspect looks whether others changed the kernel's state, and repairs it. It reads everything if that is cheap or was
// long ago; else rules, settings, the sizes of sets and some virtual servers, others each time, and everything if
// something of that is not as it was left. So what empties or deletes a kind of object is found within a sync period
// on nodes of any size, and any other change within the rest that verifyShare gives.
func (p *Proxier) Inspect(ctx context.Context) {
	if !p.adopted || !p.now().Before(p.pace.full) {
		p.Verify(ctx)
		return
	}
	p.lookForSchedulers(ctx)
	p.endUses()
	if err := p.prepare(ctx); err != nil {
		p.verifyFailed(ctx, err)
		return
	}
	if err := p.spotCheck(ctx); err != nil {
		klog.FromContext(ctx).Info("The kernel's state is not as it was left; all of it is verified", "found", err.Error())
		p.Verify(ctx)
	}
}

// errDrift is the finding of a spot check.
var errDrift = errors.New("differs from what was left there")

// spotCheck returns the first difference that it finds, or the error that kept it from looking.
func (p *Proxier) spotCheck(ctx context.Context) error {
	var sets []iptables.Set
	for _, f := range p.plane.families() {
		sets = append(sets, render.Sets(f)...)
	}
	counts, err := p.plane.Sets.Count(ctx, sets)
	if err != nil {
		return fmt.Errorf("counting entries: %w", err)
	}
	for _, s := range sets {
		if got, want := counts[s.Name], len(p.state.Sets[s.Name]); got != want {
			return fmt.Errorf("set %s has %d entries instead of %d: %w", s.Name, got, want, errDrift)
		}
	}
	if err := p.spotCheckNFT(ctx); err != nil {
		return err
	}
	bound, err := p.plane.IPVS.Bound(ctx)
	if err != nil {
		return fmt.Errorf("reading local routes: %w", err)
	}
	if left := p.state.IPVS; !maps.Equal(bound.Bound, left.Bound) || !maps.Equal(bound.Ports, left.Ports) {
		return fmt.Errorf("%d local routes and ports instead of %d, or other ones: %w",
			len(bound.Bound)+len(bound.Ports), len(left.Bound)+len(left.Ports), errDrift)
	}
	if err := p.spotCheckLoopback(ctx); err != nil {
		return err
	}
	keys := p.pace.next(p.state.IPVS.Virtual)
	found, err := p.plane.IPVS.Read(ctx, keys)
	if err != nil {
		return fmt.Errorf("reading virtual servers: %w", err)
	}
	for _, k := range keys {
		want, known := p.state.IPVS.Virtual[k]
		if got, exists := found[k]; exists != known || exists && !got.Equal(want) {
			return fmt.Errorf("virtual server %s %w", k, errDrift)
		}
	}
	return nil
}

// spotCheckNFT compares all elements, unless nothing has changed in the kernel's nf_tables since it last did.
func (p *Proxier) spotCheckNFT(ctx context.Context) error {
	if p.plane.NFT == nil {
		return nil
	}
	generation, err := p.plane.NFT.Generation(ctx) // before looking: what changes meanwhile is found next time
	if err != nil {
		return fmt.Errorf("reading nf_tables: %w", err)
	}
	clean := nftPace{known: true, generation: generation}
	if p.pace.elements == clean {
		return nil
	}
	elements, err := p.plane.NFT.Dump(ctx, p.tables)
	if err != nil {
		return fmt.Errorf("reading nf_tables: %w", err)
	}
	for set, want := range p.state.NFT {
		if got := elements[set]; !maps.Equal(got, want) {
			return fmt.Errorf("set %s has %d elements instead of %d, or other ones: %w", set, len(got), len(want), errDrift)
		}
	}
	p.pace.elements = clean
	return nil
}

// spotCheckLoopback compares all of it: there are no more entries than node ports.
func (p *Proxier) spotCheckLoopback(ctx context.Context) error {
	if p.plane.Loopback == nil {
		return nil
	}
	entries, err := p.plane.Loopback.Dump(ctx)
	if err != nil {
		return fmt.Errorf("reading node ports on loopback: %w", err)
	}
	if left := p.state.Sets[loopback.SetName]; !maps.Equal(entries, left) {
		return fmt.Errorf("%d node ports on loopback instead of %d, or other ones: %w", len(entries), len(left), errDrift)
	}
	return nil
}

// reviewBound reads which prefixes are bound, after somebody may have changed that, and returns those that are not as
// they were left. On a node that nobody else touches this is never called.
func (p *Proxier) reviewBound(ctx context.Context) []render.Touched {
	found, err := p.plane.IPVS.Bound(ctx)
	if err != nil {
		p.verifyFailed(ctx, err)
		return nil
	}
	left := p.state.IPVS
	p.state.IPVS.Bound, p.state.IPVS.Ports = found.Bound, found.Ports
	p.repaired(ctx, render.KindBound, render.BoundDrift(left.Bound, found.Bound))
	p.repaired(ctx, render.KindBound, render.BoundDrift(left.Ports, found.Ports))
	t := render.Touched{Prefixes: differing(left.Bound, found.Bound), Keys: differing(left.Ports, found.Ports)}
	if len(t.Prefixes)+len(t.Keys) == 0 {
		return nil
	}
	return []render.Touched{t}
}

// differing returns the keys that have not the same value in both maps.
func differing[K, V comparable](left, found map[K]V) []K {
	var out []K
	for k, v := range left {
		if f, ok := found[k]; !ok || f != v {
			out = append(out, k)
		}
	}
	for k := range found {
		if _, ok := left[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}
