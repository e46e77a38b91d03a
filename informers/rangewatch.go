package informers

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/lb"
)

const (
	// rangeRetryAbsent is the time between two looks at a server that has no ServiceCIDRs for us: it is upgraded, or
	// RBAC is changed, while we run. Long, because a large cluster asks once per node.
	rangeRetryAbsent = 10 * time.Minute
	// rangeRetryFirst and rangeRetryLongest bound the backoff after other failures.
	rangeRetryFirst   = time.Second
	rangeRetryLongest = time.Minute
)

// rangeWatch watches ServiceCIDRs, which a server may not have (before Kubernetes 1.33) or not show us (RBAC). An
// informer alone would then never sync, and its reflector would log and ask again for as long as the daemon runs.
// So the list is probed first, and the informer starts when the probe succeeds.
//
// It is a [cache.DoneChecker] that is done when the ranges were handed over, or when the server said that there will
// be none for now.
type rangeWatch struct {
	api  *API
	sink lb.Sink
	// others are the watches that must sync in any case. Ranges are asked for after them, so that a refusal means
	// something: an API server that has just started forbids everything until it has read its roles.
	others []cache.DoneChecker

	decide sync.Once
	done   chan struct{}
}

func newRangeWatch(a *API, sink lb.Sink, others []cache.DoneChecker) *rangeWatch {
	return &rangeWatch{api: a, sink: sink, others: slices.Clone(others), done: make(chan struct{})}
}

// Name says what is waited for.
func (w *rangeWatch) Name() string { return "ServiceCIDR" }

// Done is closed when the ranges are known or known to be unavailable.
func (w *rangeWatch) Done() <-chan struct{} { return w.done }

func (w *rangeWatch) decided() { w.decide.Do(func() { close(w.done) }) }

// run returns when ctx ended and the informer, if it was started, too.
func (w *rangeWatch) run(ctx context.Context) {
	if !cache.WaitFor(ctx, "", w.others...) || !w.waitAvailable(ctx) {
		return
	}
	logger := klog.FromContext(ctx)
	informer := networkinginformers.NewServiceCIDRInformer(w.api.client, w.api.opts.Resync, cache.Indexers{})
	watch, err := newWatch(ctx, informer, w.api.serviceCIDRs(ctx, w.sink))
	if err != nil { // only for an informer that has already started
		logger.Error(err, "ServiceCIDRs not watched")
		w.decided()
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if cache.WaitFor(ctx, "", watch.registration.HasSyncedChecker()) {
			w.decided()
		}
	})
	informer.RunWithContext(ctx)
}

// waitAvailable asks until ServiceCIDRs can be listed. It returns false when ctx ended before.
func (w *rangeWatch) waitAvailable(ctx context.Context) bool {
	logger := klog.FromContext(ctx)
	logged := false
	backoff := rangeRetryFirst
	for {
		_, err := w.api.client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{Limit: 1, ResourceVersion: "0"})
		if err == nil {
			return true
		}
		wait := backoff
		backoff = min(2*backoff, rangeRetryLongest)
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			wait = rangeRetryAbsent
		}
		// A refused connection says nothing about ServiceCIDRs, and keeps the Services from syncing anyway.
		var answer apierrors.APIStatus
		if errors.As(err, &answer) {
			if !logged {
				logger.Info("ServiceCIDRs unavailable, going on without", "reason", err.Error(), "retryIn", wait)
				logged = true
			}
			w.decided()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// fromServiceCIDR is FromServiceCIDR for an informer.
func fromServiceCIDR(obj any) ([]netip.Prefix, []Problem, bool) {
	c, ok := obj.(*networkingv1.ServiceCIDR)
	if !ok {
		return nil, nil, false
	}
	ranges, problems := FromServiceCIDR(c)
	return ranges, problems, true
}
