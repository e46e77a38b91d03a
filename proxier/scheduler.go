package proxier

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// schedulers knows which schedulers the kernel has, and which Services have to do with the default because of that.
type schedulers struct {
	// found has the answer for each scheduler that was asked for: nil, or why it cannot be used.
	found map[string]error
	// without are the Services that ask for a scheduler that cannot be used.
	without map[lb.Name]string
}

func newSchedulers() schedulers {
	return schedulers{found: map[string]error{}, without: map[lb.Name]string{}}
}

// usable returns the Service as it can be programmed: with the default scheduler if the kernel lacks its own. The kernel
// is asked once for each scheduler, which may take as long as loading a module.
func (p *Proxier) usable(ctx context.Context, o Object) lb.Service {
	name := o.Service.Scheduler
	if !o.Exists || name == "" {
		delete(p.schedulers.without, o.Name)
		return o.Service
	}
	err, asked := p.schedulers.found[name]
	if !asked {
		err = p.findScheduler(ctx, name)
		p.schedulers.found[name] = err
	}
	if err == nil {
		delete(p.schedulers.without, o.Name)
		return o.Service
	}
	if p.schedulers.without[o.Name] != name {
		p.schedulers.without[o.Name] = name
		klog.FromContext(ctx).Info("Scheduler of a Service cannot be used; it gets the default", "service", o.Name,
			"scheduler", name, "default", p.cfg.Render.Scheduler, "reason", err.Error())
		p.event(o.Name, events.SchedulerUnavailable, name, fmt.Sprintf("scheduler %s cannot be used, %s is used instead: %v", name, p.cfg.Render.Scheduler, err))
	}
	s := o.Service
	s.Scheduler = ""
	return s
}

// findScheduler returns why a scheduler cannot be used, nil if it can.
func (p *Proxier) findScheduler(ctx context.Context, name string) error {
	if !ipvs.HasScheduler(name) {
		return errors.New("it is none of " + strings.Join(ipvs.Schedulers(), ", "))
	}
	if p.plane.Scheduler == nil {
		return nil
	}
	return p.plane.Scheduler(ctx, name)
}

// lookForSchedulers asks again for the schedulers that Services have to do without: their module may have been loaded.
func (p *Proxier) lookForSchedulers(ctx context.Context) {
	asked := map[string]bool{}
	for service, name := range p.schedulers.without {
		if !asked[name] {
			asked[name] = true
			p.schedulers.found[name] = p.findScheduler(ctx, name)
		}
		if p.schedulers.found[name] == nil {
			p.Tracker.Touch(service)
		}
	}
}

// reportWeights tells, once an episode, that the rules of a Service give no endpoint a weight.
func (p *Proxier) reportWeights(ctx context.Context, o Object) {
	if !o.Exists || !render.NoWeights(o.Service, o.Slices, p.facts) {
		delete(p.noWeights, o.Name)
		return
	}
	if p.noWeights[o.Name] {
		return
	}
	p.noWeights[o.Name] = true
	klog.FromContext(ctx).Info("Weights of a Service leave no endpoint; all get the same", "service", o.Name)
	p.event(o.Name, events.NoWeights, "", "the weights leave no endpoint for new connections, so all endpoints get the same weight")
}
