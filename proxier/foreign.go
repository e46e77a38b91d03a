package proxier

import (
	"context"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// lookBefore is the most virtual servers that are looked for in the kernel before one sync adds them. So many new ones at
// a time are a cluster that comes up, and the verifications will see to it.
const lookBefore = 64

// noticeForeign finds out which of the virtual servers that are to be added are there already. If nothing records them as
// ours, they are somebody else's: adding them would turn them into ours.
func (p *Proxier) noticeForeign(ctx context.Context, touched []render.Touched) {
	var keys []ipvs.Key
	for _, t := range touched {
		for _, k := range t.Keys {
			_, have := p.state.IPVS.Virtual[k]
			if _, wanted := p.model.Frontend(k); have || !wanted || p.state.RecordsKey(k) || p.state.Guards(k.Addr) {
				continue
			}
			if keys = append(keys, k); len(keys) > lookBefore {
				return
			}
		}
	}
	if len(keys) == 0 {
		return
	}
	found, err := p.plane.IPVS.Read(ctx, keys)
	if err != nil {
		klog.FromContext(ctx).Error(err, "It is not known whether others have virtual servers at new frontends")
		return
	}
	for k := range found {
		p.foreign[k] = struct{}{}
	}
}

// setForeign notes whose virtual servers were found beside ours. What is gone is free for a Service.
func (p *Proxier) setForeign(keys map[ipvs.Key]struct{}) {
	p.foreign = keys
	for k := range p.clashes {
		if _, still := keys[k]; !still {
			delete(p.clashes, k)
		}
	}
}

// isForeign reports whether an operation would touch what belongs to somebody else: a virtual server, or an address that
// has one and that kube-hop would make its own. What it has there already it may take away.
func (p *Proxier) isForeign(o render.Op) bool {
	if !o.VIP.IsValid() {
		_, foreign := p.foreign[o.Key]
		return foreign
	}
	if !o.VIP.IsSingleIP() || o.Removes() {
		return false
	}
	for k := range p.foreign { // few, mostly none
		if k.Addr == o.VIP.Addr() {
			return true
		}
	}
	return false
}

// tellClash says once that a Service has to do without a frontend that is somebody else's.
func (p *Proxier) tellClash(ctx context.Context, o render.Op) {
	if o.VIP.IsValid() || p.clashes[o.Key] == o.Service || o.Service == (lb.Name{}) {
		return
	}
	p.clashes[o.Key] = o.Service
	klog.FromContext(ctx).Info("Frontend left alone: somebody else has a virtual server there", "virtualServer", o.Key, "service", o.Service)
	p.event(o.Service, events.ForeignVirtualServer, o.Key.String(), fmt.Sprintf("%s is not served: somebody else has a virtual server there", o.Key))
}
