package proxier

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// Config is what the loop depends on; it does not change while it runs.
type Config struct {
	// NodeName is this node's name; it holds also while there is no Node object.
	NodeName  string
	Render    render.Config
	NodePorts render.NodePortAddresses
	// MinSyncPeriod is the least time between the end of one sync and the start of the next; 0 syncs at once.
	MinSyncPeriod time.Duration
	// SyncPeriod is the time between two verifications of the kernel, and the longest wait of a retry.
	SyncPeriod time.Duration
	// DrainTimeout is how long a removed real server may keep established connections.
	DrainTimeout time.Duration
	// ExcludeCIDRs hold addresses whose virtual servers are left alone, unless they are recorded as ours.
	ExcludeCIDRs []netip.Prefix
}

// Proxier keeps the kernel equal to what the tracker holds. Only Tracker and Status may be used by other goroutines
// than the one that calls Run (or Start, Sync and Verify).
type Proxier struct {
	cfg     Config
	plane   Dataplane
	metrics *metrics.Metrics
	now     func() time.Time

	Tracker *Tracker
	Status  *Status
	// Observe, if set, is called with the operations that took effect, in order.
	Observe func(render.Plan)
	// Events takes what people should know. Set it before Run; without it the log has to do.
	Events events.Sink
	// HealthServers serves healthCheckNodePorts. Set it before Run; without it none is served.
	HealthServers HealthServers

	facts   render.Facts
	model   *render.Model
	state   render.State
	retries *retryQueue
	drains  map[drainKey]*drain
	round   *drainRound          // of looking at them, if one is under way
	lingers map[object]time.Time // until when
	flows   staleFlows
	health  healthChecks

	schedulers schedulers
	noWeights  map[lb.Name]bool // Services whose weights are all 0
	// foreign are the virtual servers of others, as far as they were seen; clashes the Services that claim one.
	foreign map[ipvs.Key]struct{}
	clashes map[ipvs.Key]lb.Name

	// rules are those in place. Families without an entry are not exposed.
	rules   map[lb.Family]iptables.Ruleset
	tables  []nftables.Table // those in place
	uses    uses
	adopted bool // the kernel's state was read once
	pace    pace
}

// New returns a proxier that has done nothing yet.
func New(cfg Config, plane Dataplane, m *metrics.Metrics, now func() time.Time) *Proxier {
	tracker := NewTracker(now)
	m.Pending(func() int { return tracker.Pending().Services }, func() int { return tracker.Pending().Endpoints })
	return &Proxier{
		cfg: cfg, plane: plane, metrics: m, now: now,
		Tracker: tracker,
		Events:  events.Discard{},
		Status:  newStatus(now, 2*cfg.SyncPeriod, func() time.Time { return tracker.Pending().Since }),
		model:   render.NewModel(render.Facts{}, cfg.Render),
		state:   render.NewState(),
		retries: newRetryQueue(cfg.SyncPeriod),
		drains:  map[drainKey]*drain{},
		lingers: map[object]time.Time{},
		flows:   newStaleFlows(),
		health:  newHealthChecks(),

		schedulers: newSchedulers(), noWeights: map[lb.Name]bool{},
		foreign: map[ipvs.Key]struct{}{}, clashes: map[ipvs.Key]lb.Name{},
		rules: map[lb.Family]iptables.Ruleset{},
	}
}

// Sync applies what changed since the last one, and what is due for a retry. The first Sync reads the kernel and
// adopts what is there.
func (p *Proxier) Sync(ctx context.Context) {
	start := p.now()
	if !p.adopted || p.retries.isDue(object{}, start) {
		p.Verify(ctx)
		return
	}
	batch := p.Tracker.Take()
	touched := p.update(ctx, batch)
	p.needChains(ctx)
	if batch.FactsChanged {
		p.followNode(ctx)
	}
	if batch.BoundMayDiffer {
		touched = append(touched, p.reviewBound(ctx)...)
	}
	touched = append(touched, p.retries.due(start)...)
	p.noticeForeign(ctx, touched)
	p.finish(ctx, start, batch.Changes, p.converge(ctx, touched))
}

// update brings the model up to date and returns what that touches.
func (p *Proxier) update(ctx context.Context, b Batch) []render.Touched {
	p.learn(ctx, b)
	return p.render(ctx, b)
}

// learn takes in the facts of a batch.
func (p *Proxier) learn(ctx context.Context, b Batch) {
	if b.FactsChanged {
		p.facts = p.factsOf(b)
		p.model = p.model.Renew(p.facts)
		klog.FromContext(ctx).V(2).Info("Node facts changed", "node", p.facts.Node.Name, "zone", p.facts.Node.Zone,
			"nodePortAddresses", p.facts.NodePorts, "serviceCIDRs", p.facts.ServiceCIDRs)
	}
	p.facts.NodeLabels = b.NodeLabels
	p.model.SetNodeLabels(b.NodeLabels)
}

// render brings the model up to date with the changed objects of a batch, of which the facts are known, and returns what
// that touches.
func (p *Proxier) render(ctx context.Context, b Batch) []render.Touched {
	touched := make([]render.Touched, 0, len(b.Changed)+1)
	for _, o := range b.Changed {
		t := p.model.Update(o.Name, p.usable(ctx, o), o.Slices, o.Exists)
		p.reportConflicts(ctx, t.Keys)
		p.reportWeights(ctx, o)
		p.health.note(o, p.facts, p.cfg.Render)
		touched = append(touched, t)
	}
	if b.FactsChanged {
		return []render.Touched{p.model.Everything(p.state)}
	}
	return touched
}

// followNode brings the rules up to date when the Node or the ServiceCIDRs changed: in detect-local mode NodeCIDR they
// hold the Node's podCIDRs, and those on ARP hold ServiceCIDRs.
func (p *Proxier) followNode(ctx context.Context) {
	if !reflect.DeepEqual(p.tables, p.wantTables()) {
		if err := p.prepareTables(ctx); err != nil {
			p.verifyFailed(ctx, err)
		}
	}
	for f, have := range p.rules {
		want := p.skeleton(f)
		if reflect.DeepEqual(have, want) {
			continue
		}
		ready, err := p.prepareFamily(ctx, f, want)
		if ready {
			p.rules[f] = want
		}
		if err != nil {
			p.verifyFailed(ctx, err)
		}
	}
}

func (p *Proxier) factsOf(b Batch) render.Facts {
	local := b.Local
	if local == nil {
		local = slices.Clone(b.Node.Addresses) // not told (rendering without a kernel): the Node object has to do
		slices.SortFunc(local, netip.Addr.Compare)
	}
	own := outside(local, b.ServiceCIDRs)
	node := b.Node
	node.Name = p.cfg.NodeName
	facts := render.Facts{
		Node:         node,
		Local:        local,
		OnLink:       b.OnLink,
		NodePorts:    p.cfg.NodePorts.Select(own, node),
		ServiceCIDRs: b.ServiceCIDRs,
	}
	if !p.cfg.Render.Loopback {
		return facts
	}
	facts.Loopback = p.cfg.NodePorts.Loopback(own, node)
	for _, a := range facts.Loopback {
		if !slices.Contains(facts.NodePorts, a) {
			facts.NodePorts = append(facts.NodePorts, a) // a stand-in
		}
	}
	return facts
}

// outside returns the addresses that lie in none of the ranges: an address of a ServiceCIDR is a Service's, whoever has
// it, and node ports are not for it.
func outside(addrs []netip.Addr, ranges []netip.Prefix) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	})
}

func (p *Proxier) reportConflicts(ctx context.Context, keys []ipvs.Key) {
	for _, c := range p.model.Conflicts(keys) {
		p.metrics.Conflicts.Inc()
		klog.FromContext(ctx).Info("Frontend is claimed by two Services; the older one keeps it",
			"virtualServer", c.Key, "service", c.Owner, "withoutIt", c.Loser)
		p.event(c.Loser, events.FrontendConflict, c.Key.String(), fmt.Sprintf("%s is served for Service %s, which has the older claim to it", c.Key, c.Owner))
	}
}

// event tells people about a Service, or a part of it.
func (p *Proxier) event(service lb.Name, reason events.Reason, part, message string) {
	p.Events.Report(events.Event{Service: service, UID: p.Tracker.uid(service), Part: part, Reason: reason, Message: message})
}

// count adds operations that took effect to the metric, once for each kind in a row.
func (p *Proxier) count(done render.Plan) {
	for len(done) > 0 {
		name, n := operationName(done[0]), 1
		for n < len(done) && operationName(done[n]) == name {
			n++
		}
		p.metrics.Operations.WithLabelValues(name, "ok").Add(float64(n))
		done = done[n:]
	}
}

// settle takes an object off the retry queue unless it failed just now.
func (p *Proxier) settle(o object, failing map[object]bool) {
	if !failing[o] {
		p.retries.succeeded(o)
	}
}

// noteFailures logs, counts and schedules the retry of what failed, once an object.
func (p *Proxier) noteFailures(ctx context.Context, failures []failure) map[object]bool {
	failing := map[object]bool{}
	logger := klog.FromContext(ctx)
	for _, f := range failures {
		o := objectOf(f.op)
		if !errors.Is(f.err, errWithheld) {
			p.metrics.Operations.WithLabelValues(operationName(f.op), "failed").Inc()
			logger.Error(f.err, "Kernel operation failed; it will be retried", "operation", f.op.String(),
				"service", f.op.Service, "object", o)
		}
		if failing[o] {
			continue
		}
		failing[o] = true
		if first := p.retries.failed(o, f.op.Service, p.now()); first && f.op.Service != (lb.Name{}) && !errors.Is(f.err, errWithheld) {
			p.event(f.op.Service, events.NotProgrammed, "", fmt.Sprintf("the kernel of the node refused an operation, which will be retried: %v", f.err))
		}
	}
	return failing
}

// finish updates metrics and status after a sync.
func (p *Proxier) finish(ctx context.Context, start time.Time, c Changes, operations int) {
	p.serveHealthChecks(ctx)
	took := p.now().Sub(start)
	p.metrics.ServiceChanges.Add(float64(c.Services))
	p.metrics.EndpointChanges.Add(float64(c.Endpoints))
	for policy, n := range p.model.WithoutLocal() {
		p.metrics.NoLocal.WithLabelValues(policy.String(), policy.Family.String()).Set(float64(n))
	}
	p.metrics.Services.Set(float64(p.model.Len()))
	p.metrics.Draining.Set(float64(len(p.drains)))
	for _, f := range p.plane.families() {
		p.metrics.SyncDuration.WithLabelValues(f.String()).Observe(took.Seconds())
		if len(p.retries.items) == 0 {
			p.metrics.LastSync.WithLabelValues(f.String()).Set(float64(p.now().UnixNano()) / 1e9)
		}
	}
	p.programmed(c.Triggers)
	p.showFailing()
	if operations > 0 {
		klog.FromContext(ctx).V(2).Info("Synced", "operations", operations, "services", c.Services,
			"endpointSlices", c.Endpoints, "failing", len(p.retries.items), "took", took)
	}
}

// showFailing brings metric and status up to date with what is being retried.
func (p *Proxier) showFailing() {
	p.metrics.Failing.Set(float64(len(p.retries.items)))
	p.Status.set(p.retries.oldest())
}

// programmed measures the time from changes of endpoints to now, when they are in the kernel.
func (p *Proxier) programmed(triggers []Trigger) {
	for _, t := range triggers {
		p.metrics.Programming.WithLabelValues(t.Family.String()).Observe(p.now().Sub(t.At).Seconds())
	}
}

// withhold drops the operations of families whose rules are not in place, since nothing is exposed without its guards,
// and those on what belongs to somebody else.
func (p *Proxier) withhold(ctx context.Context, plan render.Plan) render.Plan {
	if len(p.foreign) > 0 {
		plan = slices.DeleteFunc(plan, func(o render.Op) bool {
			if !p.isForeign(o) {
				return false
			}
			p.tellClash(ctx, o)
			return true
		})
	}
	if _, guarded4 := p.rules[lb.IPv4]; guarded4 {
		if _, guarded6 := p.rules[lb.IPv6]; guarded6 {
			return plan
		}
	}
	return slices.DeleteFunc(plan, func(o render.Op) bool {
		addr := o.Key.Addr
		if o.VIP.IsValid() {
			addr = o.VIP.Addr()
		}
		_, guarded := p.rules[lb.FamilyOf(addr)]
		return !guarded
	})
}

func operationName(o render.Op) string {
	switch {
	case o.IPVS != nil:
		return o.IPVS.Verb.String()
	case o.NFT != nil && o.NFT.Delete:
		return "nft del"
	case o.NFT != nil:
		return "nft add"
	case o.Set.Delete:
		return "set del"
	default:
		return "set add"
	}
}
