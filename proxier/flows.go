package proxier

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// flowPeriod is the least time between two cleanups of stale flows. Each walks over the whole connection tracking
// table, so what a rolling update changes is cleaned up together. The first one comes right after its change.
const flowPeriod = time.Second

// staleFlows are the frontends whose flows may be stale since they were last looked at, and the real servers that UDP
// frontends have got since.
type staleFlows struct {
	// udp says of each UDP frontend whether it is new.
	udp   map[ipvs.Key]bool
	added map[netip.AddrPort]struct{}
	// opened are TCP and SCTP frontends that are new.
	opened map[ipvs.Key]struct{}
	next   time.Time // the next cleanup is not before
}

func newStaleFlows() staleFlows {
	return staleFlows{udp: map[ipvs.Key]bool{}, added: map[netip.AddrPort]struct{}{}, opened: map[ipvs.Key]struct{}{}}
}

func (s *staleFlows) empty() bool { return len(s.udp)+len(s.opened) == 0 }

// note remembers the frontends of operations after which flows can be stale: a frontend that is new may find flows
// that are older, one that is gone, has lost a real server or loses one-packet scheduling leaves some behind, and a real
// server that comes back may have left some itself. Of TCP and SCTP only new frontends matter.
func (s *staleFlows) note(st render.State, done render.Plan) {
	for _, o := range done {
		if o.IPVS == nil {
			continue
		}
		switch o.IPVS.Verb {
		case ipvs.AddVirtual:
			s.add(st, o.Key, true)
			s.open(st, o.Key)
		case ipvs.EditVirtual, ipvs.DeleteVirtual, ipvs.DeleteReal:
			s.add(st, o.Key, false)
		case ipvs.AddReal:
			if s.add(st, o.Key, false) {
				s.added[netip.AddrPortFrom(o.IPVS.Real.Addr, o.IPVS.Real.Port)] = struct{}{}
			}
		default:
		}
	}
}

// add remembers the UDP frontends of a virtual server and reports whether there is one.
func (s *staleFlows) add(st render.State, k ipvs.Key, isNew bool) bool {
	if k.Mark == 0 && k.Proto != ipvs.UDP {
		return false // what most are
	}
	found := false
	for _, f := range st.FrontendsOf(k) {
		if f.Proto == ipvs.UDP {
			s.udp[f], found = s.udp[f] || isNew, true
		}
	}
	return found
}

// noteAll remembers every frontend. Those of UDP are not taken for new: with one-packet scheduling it would make a
// difference.
func (s *staleFlows) noteAll(st render.State) {
	for k := range st.IPVS.Virtual {
		s.add(st, k, false)
		s.open(st, k)
	}
}

// open remembers those TCP and SCTP frontends of a virtual server whose clients may have begun before it.
func (s *staleFlows) open(st render.State, k ipvs.Key) {
	for _, f := range st.FrontendsOf(k) {
		if f.Proto != ipvs.UDP {
			s.opened[f] = struct{}{}
		}
	}
}

func (s *staleFlows) clear() {
	clear(s.udp)
	clear(s.added)
	clear(s.opened)
}

// ExpireFlows deletes the entries of stale flows from the connection tracking table. What fails is kept and tried
// again.
func (p *Proxier) ExpireFlows(ctx context.Context) {
	if p.plane.Flows == nil {
		p.flows.clear() // or the loop would not come to rest
	}
	if p.flows.empty() {
		return
	}
	all := p.cleanup()
	var errs []error
	for _, f := range p.plane.families() {
		of := all.OfFamily(f == lb.IPv6)
		if of.Empty() {
			continue
		}
		start := p.now()
		n, err := p.plane.Flows.Expire(ctx, of)
		p.metrics.FlowSyncDuration.WithLabelValues(f.String()).Observe(p.now().Sub(start).Seconds())
		p.metrics.FlowsDeleted.WithLabelValues(f.String()).Add(float64(n))
		if n > 0 {
			klog.FromContext(ctx).V(2).Info("Deleted stale flows", "family", f, "entries", n, "frontends", len(of.Frontends)+len(of.Opened))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		klog.FromContext(ctx).Error(err, "Stale flows may be left; it will be tried again", "frontends", len(all.Frontends)+len(all.Opened))
		p.retries.failed(object{flows: true}, lb.Name{}, p.now())
		p.flows.next = p.retries.items[object{flows: true}].at
	} else {
		p.retries.succeeded(object{flows: true})
		p.flows.clear()
		p.flows.next = p.now().Add(flowPeriod)
	}
	p.showFailing()
}

// cleanup says what is stale now.
func (p *Proxier) cleanup() conntrack.Cleanup {
	c := conntrack.Cleanup{Frontends: conntrack.Frontends{}, Added: p.flows.added, Opened: map[conntrack.Frontend]struct{}{}}
	for k, isNew := range p.flows.udp {
		c.Frontends[netip.AddrPortFrom(k.Addr, k.Port)] = p.servers(k, isNew)
	}
	for k := range p.flows.opened {
		if _, exists := p.state.IPVS.Virtual[k]; exists { // what is gone by now is nobody's
			c.Opened[conntrack.Frontend{Proto: lb.Proto(k.Proto), At: netip.AddrPortFrom(k.Addr, k.Port)}] = struct{}{}
		}
	}
	return c
}

// servers returns who answers on a UDP frontend, draining real servers included. As far as connection tracking knows, that
// is also the frontend itself with one-packet scheduling, but not while it is new: its older flows look the same.
func (p *Proxier) servers(k ipvs.Key, isNew bool) conntrack.Servers {
	virtual, exists := p.state.IPVS.Virtual[k]
	s := conntrack.Servers{Gone: !exists}
	if virtual.Config.Flags&ipvs.FlagOnePacket != 0 && !isNew {
		s.Live = append(s.Live, netip.AddrPortFrom(k.Addr, k.Port))
	}
	for _, r := range p.state.RealServersOf(k) {
		s.Live = append(s.Live, netip.AddrPortFrom(r.Addr, r.Port))
	}
	slices.SortFunc(s.Live, netip.AddrPort.Compare)
	return s
}
