package proxier

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

const (
	// drainCheck is how often the connection counts of draining real servers are read.
	drainCheck = time.Second
	// quietChecks is how many checks in a row must agree that the peers of a real server are gone.
	quietChecks = 3
	// lingerTime is how long connections through an address are reset after its last frontend has gone. A client that waits for an answer sends
	// again within seconds, an idle one commonly asks every 15 s whether its peer is alive.
	lingerTime = 30 * time.Second
)

// drainKey is one real server that waits for its connections to end.
type drainKey struct {
	key  ipvs.Key
	dest ipvs.Dest
}

// drain is what is known of a draining real server.
type drain struct {
	deadline time.Time
	last     ipvs.Conns
	// unanswered counts the checks since the real server last sent anything at which clients had sent something.
	unanswered int
	// watched is set once what the endpoint sends is noticed whatever IPVS counts.
	watched bool
	// closed counts the checks in a row without an established connection.
	closed int
}

// note takes in what the kernel counted at a check.
func (d *drain) note(c ipvs.Conns) {
	switch {
	case c.Out != d.last.Out:
		d.unanswered = 0
	case c.In != d.last.In:
		d.unanswered++
	}
	d.closed++
	if c.Active > 0 {
		d.closed = 0
	}
	d.last = c
}

// ended reports whether the real server has no connections any more.
//
// SCTP associations that were closed stay listed among the inactive connections (Linux 6.12: for more than a minute
// after their time has run out), so that the established ones alone count.
func (d *drain) ended(proto ipvs.Proto) bool {
	return d.last.Active+d.last.Inactive == 0 || proto == ipvs.SCTP && d.closed >= quietChecks
}

// noteDrains enters the draining real servers of a virtual server; those that drain already keep their deadline.
// Since a draining real server is known by its weight alone, draining survives a restart (with a new deadline).
func (p *Proxier) noteDrains(k ipvs.Key) {
	for _, d := range render.Draining(p.model, p.state, k) {
		dk := drainKey{k, d.Dest}
		if _, ok := p.drains[dk]; !ok {
			p.drains[dk] = &drain{deadline: p.now().Add(p.cfg.DrainTimeout)}
		}
	}
}

// noteLingers enters an address or a port if something is left of it for the sake of the connections that it had. That too is
// known from the kernel's state alone, and so survives a restart.
func (p *Proxier) noteLingers(o object) {
	if _, ok := p.lingers[o]; !ok && p.isLingering(o) {
		p.lingers[o] = p.now().Add(lingerTime)
	}
}

func (p *Proxier) isLingering(o object) bool {
	if o.vip.IsValid() {
		return render.Lingers(p.model, p.state, o.vip)
	}
	return render.PortLingers(p.model, p.state, o.key)
}

// drained is what one check found of a draining real server.
type drained struct {
	*drain

	key   ipvs.Key
	proto ipvs.Proto
	real  render.Drain
	// listed is set if the kernel told its connections. One that is not listed says nothing about them; the next
	// verification finds out.
	listed bool
	// unsure is set if the kernel did not tell whether it was heard of.
	unsure bool
}

// suspect reports whether the endpoint may be dead: no slice names it any more, and clients get no answer, as far as
// what IPVS counts can tell.
func (d *drained) suspect() bool { return d.real.Gone && d.unanswered > 0 }

// over reports whether nothing is left to wait for.
func (d *drained) over() bool {
	return d.listed && (d.ended(d.proto) || d.suspect() && !d.unsure && d.unanswered >= quietChecks)
}

// noteDrainCheck keeps the books about looking at what drains, which is tried again at the next check.
func (p *Proxier) noteDrainCheck(ctx context.Context, err error) {
	if err == nil {
		p.retries.succeeded(object{drains: true})
		return
	}
	klog.FromContext(ctx).Error(err, "Whether draining has ended cannot be found out; it will be tried again", "draining", len(p.drains))
	p.metrics.Operations.WithLabelValues("check draining", "failed").Inc()
	p.retries.failed(object{drains: true}, lb.Name{}, p.now())
}

// forget ends the lingering of what has lingered long enough, and of what is wanted again.
func (p *Proxier) forget(ctx context.Context) {
	var due render.Touched
	for o, until := range p.lingers {
		switch {
		case !p.isLingering(o):
			delete(p.lingers, o)
		case p.now().Before(until):
		case o.vip.IsValid():
			due.Prefixes = append(due.Prefixes, o.vip)
		default:
			due.Keys = append(due.Keys, o.key)
		}
	}
	slices.SortFunc(due.Prefixes, netip.Prefix.Compare)
	slices.SortFunc(due.Keys, ipvs.Key.Compare)
	if len(due.Prefixes)+len(due.Keys) > 0 {
		p.apply(ctx, render.Forget(p.model, p.state, due), []render.Touched{due})
	}
}
