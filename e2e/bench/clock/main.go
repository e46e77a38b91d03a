// Command clock notes when the API server delivers EndpointSlices to a process that does nothing else: what it takes by
// itself to bring a change to anybody on this machine.
//
// usage: clock KUBECONFIG NAMESPACE
//
// It writes a line "watching" when all later changes will be noted, and for each slice "delivered ADDRESS at TIME": the
// slice's last endpoint, and the nanoseconds since 1970. It runs until it is ended.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"

	"github.com/kube-hop/kube-hop/informers"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: clock KUBECONFIG NAMESPACE")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "clock:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, namespace string) error {
	client, err := informers.NewClient(kubeconfig, "", 0, 0, "")
	if err != nil {
		return err
	}
	api := client.DiscoveryV1().EndpointSlices(namespace)
	list, err := api.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return fmt.Errorf("list slices: %w", err)
	}
	// The API server ends a watch that does not keep up, as in a burst on a busy machine; this one is begun again.
	w, err := toolswatch.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{WatchFuncWithContext: api.Watch})
	if err != nil {
		return fmt.Errorf("watch slices: %w", err)
	}
	fmt.Println("watching")
	for event := range w.ResultChan() {
		now := time.Now()
		slice, ok := event.Object.(*discoveryv1.EndpointSlice)
		if !ok || len(slice.Endpoints) == 0 {
			continue
		}
		fmt.Printf("delivered %s at %d\n", slice.Endpoints[len(slice.Endpoints)-1].Addresses[0], now.UnixNano())
	}
	return errors.New("the watch has ended")
}
