// Command onlywatch hears of all that a proxy hears of, by kube-hop's informers, and does nothing about it: the floor of
// what a proxy costs beside its work on the kernel.
//
// usage: onlywatch KUBECONFIG NODE
//
// It writes a line when it has heard of all objects, "heard of all at " and the time in nanoseconds since 1970, and runs until
// it gets SIGTERM. Then it writes when it first heard of the endpoints of Services that changed since: "heard
// first of ADDRESS at TIME".
package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/informers"
	"github.com/kube-hop/kube-hop/proxier"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: onlywatch KUBECONFIG NODE")
		os.Exit(2)
	}
	debug.SetGCPercent(75) // as kube-hop
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	if err := watch(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "onlywatch:", err)
		os.Exit(1)
	}
}

// watch hears of everything until ctx ends.
func watch(ctx context.Context, kubeconfig, node string) error {
	client, err := informers.NewClient(kubeconfig, "", 0, 0, "")
	if err != nil {
		return err
	}
	metadata, err := informers.NewMetadataClient(kubeconfig, "", 0, 0)
	if err != nil {
		return err
	}
	tracker := proxier.NewTracker(time.Now)
	heard := make(chan map[netip.Addr]time.Time, 1)
	go func() { heard <- forget(ctx, tracker) }()
	err = informers.NewAPI(client, informers.APIOptions{NodeName: node, Metadata: metadata}).Run(ctx, tracker)
	if ctx.Err() == nil {
		return err
	}
	for addr, at := range <-heard {
		fmt.Printf("heard first of %s at %d\n", addr, at.UnixNano())
	}
	return nil
}

// forget takes what has changed and does nothing with it. It returns when it first heard of the endpoints of changed Services.
func forget(ctx context.Context, tracker *proxier.Tracker) map[netip.Addr]time.Time {
	heard := map[netip.Addr]time.Time{}
	for told := false; ; {
		select {
		case <-ctx.Done():
			return heard
		case <-tracker.Wake():
		}
		batch, now := tracker.Take(), time.Now()
		if told {
			note(heard, batch.Changed, now)
		} else if tracker.IsSynced() {
			told = true
			fmt.Printf("heard of all at %d\n", now.UnixNano())
		}
	}
}

func note(heard map[netip.Addr]time.Time, changed []proxier.Object, now time.Time) {
	for _, o := range changed {
		for _, s := range o.Slices {
			for _, e := range s.Endpoints {
				if _, known := heard[e.Addr]; !known {
					heard[e.Addr] = now
				}
			}
		}
	}
}
