package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/config"
	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/health"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/proxier"
)

// bindRetry is the wait before a server whose address was taken tries again, as in kube-proxy.
const bindRetry = 5 * time.Second

func newRun() *cobra.Command {
	var flags config.Flags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon (the default command)",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := wrong(flags.RunConfig())
			if err != nil {
				return err
			}
			return run(cmd.Context(), c)
		},
	}
	flags.Add(cmd.Flags())
	return cmd
}

// gcPercent makes the garbage collector run somewhat more often than by default. The daemon is on every node of a cluster, and
// memory it holds all the time, while collecting takes little processor time: a twentieth of that of a start by default.
const gcPercent = 75

// saveMemory sets it, unless the environment says otherwise.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// run is the daemon. It returns when ctx ends, after everything that it started has ended; what it programmed stays
// and goes on serving.
func run(ctx context.Context, c config.Config) error {
	klog.FromContext(ctx).Info("Starting kube-hop", "version", version, "node", c.Proxier.NodeName)
	saveMemory()
	if err := check(ctx, c.Proxier.Render.Scheduler); err != nil {
		return err
	}
	k, err := openKernel(ctx, &c.Proxier.Render)
	if err != nil {
		return err
	}
	defer k.close()
	k.follow(c)
	c.Proxier.Render.TCPBeLiberal = c.Proxier.Render.TCPBeLiberal || ipvsnl.TracksLiberally()

	m := metrics.New()
	from, err := openSource(c, m)
	if err != nil {
		return err
	}
	k.tellSettings(from.events)
	p := proxier.New(c.Proxier, k.Dataplane, m, time.Now)
	p.Events = from.events
	servers := health.NewServiceServers(listenAnywhere, func() bool { healthy, _ := p.Status.Healthy(); return healthy })
	defer servers.Close()
	p.HealthServers = servers
	if err := readAddresses(ctx, k, p.Tracker); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	if err := from.startEvents(ctx); err != nil {
		return err
	}
	defer from.closeEvents()
	from.events.Report(events.Event{Reason: events.Starting})
	g.Go(func() error { return from.Run(ctx, p.Tracker) })
	g.Go(func() error { p.Run(ctx); return nil })
	g.Go(func() error { followAddresses(ctx, k, p.Tracker); return nil })
	g.Go(func() error { k.table.WatchBound(ctx, p.Tracker.BoundMayDiffer); return nil })
	var families []string
	for f := range k.Rules {
		families = append(families, f.String())
	}
	g.Go(func() error {
		return serve(ctx, c.HealthAddr, health.Handler(nodeState{p}, m, families, time.Now))
	})
	g.Go(func() error { return serve(ctx, c.MetricsAddr, health.MetricsHandler(m, "ipvs", c.Profiling)) })
	err = g.Wait()
	klog.FromContext(ctx).Info("Stopped; what was programmed stays in place")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// nodeState is what the health server asks.
type nodeState struct{ p *proxier.Proxier }

func (s nodeState) Healthy() (bool, time.Time) { return s.p.Status.Healthy() }
func (s nodeState) Started() bool              { return s.p.Status.Started() }

// Eligible is false while the Node is unknown, being deleted or about to be removed.
func (s nodeState) Eligible() bool {
	n := s.p.Tracker.Node()
	return n.Name != "" && !n.Leaving
}

func readAddresses(ctx context.Context, k *kernel, t *proxier.Tracker) error {
	addrs, networks, err := k.table.NodeAddresses(ctx)
	if err != nil {
		return fmt.Errorf("reading the node's addresses: %w", err)
	}
	t.SetNetworks(networks)
	t.SetLocalAddresses(addrs)
	return nil
}

// followAddresses tells the tracker about every change of the node's addresses.
func followAddresses(ctx context.Context, k *kernel, t *proxier.Tracker) {
	k.table.WatchAddresses(ctx, func() {
		if err := readAddresses(ctx, k, t); err != nil {
			klog.FromContext(ctx).Error(err, "Node ports may be missing on new addresses until the next change")
		}
	})
}

// serve runs an HTTP server until ctx ends. An address that is taken is tried again: the port may belong to the
// daemon that this one replaces.
func serve(ctx context.Context, addr netip.AddrPort, h http.Handler) error {
	if !addr.IsValid() {
		return nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr.String())
	for ; err != nil && ctx.Err() == nil; listener, err = config.Listen(ctx, "tcp", addr.String()) {
		klog.FromContext(ctx).Error(err, "Address is taken; it will be tried again", "address", addr, "retryIn", bindRetry)
		retry := time.NewTimer(bindRetry)
		select {
		case <-ctx.Done():
			retry.Stop()
			return nil
		case <-retry.C:
		}
	}
	if err != nil {
		return nil //nolint:nilerr // ctx has ended
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		_ = server.Close() // its only errors are those of listeners that are closed already
	}()
	err = server.Serve(listener)
	if ctx.Err() == nil {
		return fmt.Errorf("serving %s: %w", addr, err)
	}
	<-stopped
	return nil
}
