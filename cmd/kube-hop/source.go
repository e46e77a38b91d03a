package main

import (
	"context"

	"github.com/kube-hop/kube-hop/config"
	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/events/eventsapi"
	"github.com/kube-hop/kube-hop/informers"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/metrics"
)

// source is where objects come from and events go to.
type source struct {
	runner interface {
		Run(ctx context.Context, sink lb.Sink) error
	}
	events events.Sink
	api    *eventsapi.Sink // nil for a folder, where the log has to do
}

// Run feeds the sink until ctx ends.
func (s source) Run(ctx context.Context, sink lb.Sink) error { return s.runner.Run(ctx, sink) }

func openSource(c config.Config, m *metrics.Metrics) (source, error) {
	if c.From != "" {
		f := informers.NewFolder(c.From, c.Proxier.NodeName)
		f.OnProblem = func(informers.Problem) { m.Problems.Inc() }
		return source{runner: f, events: events.Discard{}}, nil
	}
	client, err := informers.NewClient(c.Kubeconfig, c.Master, c.QPS, c.Burst, c.ContentType)
	if err != nil {
		return source{}, err
	}
	// A client of its own: events must not use up what the informers may ask for in a second.
	writer, err := informers.NewClient(c.Kubeconfig, c.Master, c.QPS, c.Burst, c.ContentType)
	if err != nil {
		return source{}, err
	}
	metadata, err := informers.NewMetadataClient(c.Kubeconfig, c.Master, c.QPS, c.Burst)
	if err != nil {
		return source{}, err
	}
	sink := eventsapi.New(writer, c.Proxier.NodeName)
	api := informers.NewAPI(client, informers.APIOptions{NodeName: c.Proxier.NodeName, Resync: c.Resync, Metadata: metadata, NeedPodCIDRs: c.Proxier.Render.Local.NodeCIDR, OnProblem: func(p informers.Problem) {
		m.Problems.Inc()
		if p.Service != (lb.Name{}) {
			sink.Report(events.Event{Service: p.Service, UID: p.UID, Part: p.Field, Reason: events.UnusableValue, Message: p.String()})
		}
	}})
	return source{runner: api, events: sink, api: sink}, nil
}

func (s source) startEvents(ctx context.Context) error {
	if s.api == nil {
		return nil
	}
	return s.api.Start(ctx)
}

func (s source) closeEvents() {
	if s.api != nil {
		s.api.Close()
	}
}
