package informers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/lb"
)

const (
	// addressWait is how long the first sync waits for the Node's addresses; then it goes on without.
	addressWait = 30 * time.Second
	// podCIDRWait is how long it waits for the Node's podCIDRs, where pods are told by them.
	podCIDRWait = 5 * time.Minute
)

// ErrNoPodCIDRs ends a source whose Node has got no podCIDRs although pods are to be told by them: without, no
// connection would be masqueraded. The next start waits again.
var ErrNoPodCIDRs = errors.New("informers: the Node has no podCIDRs, by which local pods are to be told")

// nodeWait keeps the first sync from beginning before the Node says what it decides: which of its addresses are primary,
// and which are its pods'. A new node's kubelet may need a moment for that. The times are kube-proxy's.
//
// It is a [cache.DoneChecker] that is done when there is nothing more to wait for.
type nodeWait struct {
	watch     cache.DoneChecker // of the Node
	node      string
	needsPods bool

	addresses, pods sync.Once
	hasAddresses    chan struct{}
	hasPods         chan struct{}

	done chan struct{}
	err  error // after done
}

func newNodeWait(opts APIOptions) *nodeWait {
	return &nodeWait{
		node: opts.NodeName, needsPods: opts.NeedPodCIDRs,
		hasAddresses: make(chan struct{}), hasPods: make(chan struct{}), done: make(chan struct{}),
	}
}

// Name says what is waited for.
func (w *nodeWait) Name() string { return "Node" }

// Done is closed when the wait is over.
func (w *nodeWait) Done() <-chan struct{} { return w.done }

// note takes in what the Node says.
func (w *nodeWait) note(n lb.Node) {
	if len(n.Addresses) > 0 {
		w.addresses.Do(func() { close(w.hasAddresses) })
	}
	if len(n.PodCIDRs) > 0 {
		w.pods.Do(func() { close(w.hasPods) })
	}
}

// run returns when the wait is over or ctx ended.
func (w *nodeWait) run(ctx context.Context) {
	defer close(w.done)
	select {
	case <-w.watch.Done():
	case <-ctx.Done():
		return
	}
	if !within(ctx, addressWait, w.hasAddresses) && ctx.Err() == nil {
		klog.FromContext(ctx).Info("Node has no address; going on without", "node", w.node, "waited", addressWait)
	}
	if w.needsPods && !within(ctx, podCIDRWait, w.hasPods) && ctx.Err() == nil {
		w.err = fmt.Errorf("%w: Node %q, waited for %s", ErrNoPodCIDRs, w.node, podCIDRWait)
	}
}

// within reports whether something happens within a time.
func within(ctx context.Context, limit time.Duration, what <-chan struct{}) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-what:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
