package proxier

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// healthRetry is the wait before a health check node port that could not be opened is tried again.
const healthRetry = 5 * time.Second

// HealthServers serves healthCheckNodePorts.
type HealthServers interface {
	// Apply makes the servers of a Service what is wanted; none closes them. What is right already stays as it is. The
	// error names what could not be opened; a later Apply tries again.
	Apply(ctx context.Context, service lb.Name, want []lb.HealthCheck) error
}

// healthChecks is what is to be served at healthCheckNodePorts, and what of it is not yet.
type healthChecks struct {
	want map[lb.Name][]lb.HealthCheck
	// pending are the Services whose servers have to be looked at after the next sync.
	pending map[lb.Name]struct{}
	// failing are those with a port that could not be opened; retryAt is when they are tried again.
	failing map[lb.Name]struct{}
	retryAt time.Time
}

func newHealthChecks() healthChecks {
	return healthChecks{want: map[lb.Name][]lb.HealthCheck{}, pending: map[lb.Name]struct{}{}, failing: map[lb.Name]struct{}{}}
}

// note takes in what a Service asks for now. A Service without health checks costs a look into a map.
func (h *healthChecks) note(o Object, facts render.Facts, cfg render.Config) {
	var next []lb.HealthCheck
	if o.Exists {
		next = render.HealthChecks(o.Service, o.Slices, facts, cfg)
	}
	if len(next) == 0 && len(h.want[o.Name]) == 0 {
		return
	}
	h.want[o.Name] = next
	h.pending[o.Name] = struct{}{}
}

// serveHealthChecks brings the servers up to date after a sync, when guards and rules for them are in place. A port that
// cannot be opened concerns nothing else: it is told, and tried again.
func (p *Proxier) serveHealthChecks(ctx context.Context) {
	if p.HealthServers == nil {
		return
	}
	h := &p.health
	if len(h.failing) > 0 && !p.now().Before(h.retryAt) {
		for name := range h.failing {
			h.pending[name] = struct{}{}
		}
	}
	for name := range h.pending {
		err := p.HealthServers.Apply(ctx, name, h.want[name])
		if len(h.want[name]) == 0 {
			delete(h.want, name)
		}
		_, failed := h.failing[name]
		switch {
		case err == nil:
			delete(h.failing, name)
		case failed:
			h.retryAt = p.now().Add(healthRetry)
		default:
			h.failing[name] = struct{}{}
			h.retryAt = p.now().Add(healthRetry)
			klog.FromContext(ctx).Error(err, "Health check node port not served; it will be tried again", "service", name, "retryIn", healthRetry)
			p.event(name, events.HealthCheckFailed, "", err.Error())
		}
	}
	clear(h.pending)
}
