//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
)

// deliveries notes when the API server delivers EndpointSlices to a watcher: what it takes by itself to bring a change to
// anybody on this machine.
type deliveries struct {
	watch watch.Interface
	done  chan struct{} // closed when the watch has ended

	mu   sync.Mutex
	at   map[netip.Addr]time.Time // by the last endpoint
	last time.Time
}

// watchSlices notes what is delivered from now on. Close it.
func watchSlices(ctx context.Context, client kubernetes.Interface) (*deliveries, error) {
	api := client.DiscoveryV1().EndpointSlices(namespace)
	list, err := api.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("list slices: %w", err)
	}
	// The API server ends a watch that does not keep up, as in a burst on a busy machine; this one is begun again.
	w, err := toolswatch.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{WatchFuncWithContext: api.Watch})
	if err != nil {
		return nil, fmt.Errorf("watch slices: %w", err)
	}
	d := &deliveries{watch: w, done: make(chan struct{}), at: map[netip.Addr]time.Time{}}
	go d.run()
	return d, nil
}

func (d *deliveries) run() {
	defer close(d.done)
	for event := range d.watch.ResultChan() {
		now := time.Now()
		slice, ok := event.Object.(*discoveryv1.EndpointSlice)
		if !ok || len(slice.Endpoints) == 0 {
			continue
		}
		addr, err := netip.ParseAddr(slice.Endpoints[len(slice.Endpoints)-1].Addresses[0])
		if err != nil {
			continue // not one of ours
		}
		d.mu.Lock()
		d.at[addr], d.last = now, now
		d.mu.Unlock()
	}
}

func (d *deliveries) close() {
	d.watch.Stop()
	<-d.done
}

// errUndelivered says that the watcher has not heard of a change yet.
var errUndelivered = errors.New("not delivered to a watcher")

// of returns when the slice with that last endpoint came.
func (d *deliveries) of(last netip.Addr) (time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.at[last]
	if !ok {
		return t, errUndelivered
	}
	return t, nil
}
