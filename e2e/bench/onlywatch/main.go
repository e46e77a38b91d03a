// Command onlywatch hears of all that a proxy hears of, by kube-hop's informers, and does nothing about it: the floor of
// what a proxy costs beside its work on the kernel.
//
// usage: onlywatch KUBECONFIG NODE
//
// It writes a line when it has heard of all objects, "heard of all at " and the time in nanoseconds since 1970, and runs until
// it gets SIGTERM.
package main

import (
	"context"
	"fmt"
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
	go forget(ctx, tracker)
	return informers.NewAPI(client, informers.APIOptions{NodeName: node, Metadata: metadata}).Run(ctx, tracker)
}

// forget takes what has changed and does nothing with it.
func forget(ctx context.Context, tracker *proxier.Tracker) {
	for told := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tracker.Wake():
		}
		tracker.Take()
		if !told && tracker.IsSynced() {
			told = true
			fmt.Printf("heard of all at %d\n", time.Now().UnixNano())
		}
	}
}
