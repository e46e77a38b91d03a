package informers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/lb"
)

// APIOptions says what to watch and how.
type APIOptions struct {
	// NodeName is the name of this node's Node object. Required.
	NodeName string
	// Resync is how often every object is handed to the sink again although nothing changed; zero: never. client-go
	// raises it to at least one second.
	Resync time.Duration
	// NeedPodCIDRs is set when local pods are told by the Node's podCIDRs.
	NeedPodCIDRs bool
	// OnProblem is called once for each item of an object that cannot be used, and again if it was gone in between.
	// Calls come from several goroutines; nil is fine.
	OnProblem func(Problem)
	// Metadata is what labels of Nodes are read with while a Service's weights look at them; without it such weights do not
	// apply.
	Metadata metadata.Interface
}

// API is the source that watches an API server.
type API struct {
	client kubernetes.Interface
	opts   APIOptions
}

// NewAPI returns a source that reads from client. Nothing is read before [API.Run].
func NewAPI(client kubernetes.Interface, opts APIOptions) *API {
	opts.NodeName = strings.ToLower(strings.TrimSpace(opts.NodeName))
	return &API{client: client, opts: opts}
}

// Run feeds sink until ctx ends, and returns nil when all of its goroutines have ended. It calls Synced after every
// object that existed at the start was handed over and the Node has what it is waited for, see nodeWait; without what
// cannot be done without it returns an error. An API server that does not answer is no error: the informers retry, with
// backoff, until ctx ends.
//
// The sink gets a Node with nothing but a name, and no ServiceCIDRs, before anything else: both may be missing.
func (a *API) Run(ctx context.Context, sink lb.Sink) error {
	if a.opts.NodeName == "" {
		return errors.New("informers: node name is empty")
	}
	sink.SetNode(lb.Node{Name: a.opts.NodeName})
	sink.SetServiceCIDRs(nil)

	labels := newLabelWatch(a, sink)
	defer labels.close()
	watches, node, err := a.watches(ctx, sink, labels)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	checkers := make([]cache.DoneChecker, 0, len(watches)+2)
	for _, w := range watches {
		checkers = append(checkers, w.registration.HasSyncedChecker())
		wg.Go(func() { w.informer.RunWithContext(ctx) })
	}
	ranges := newRangeWatch(a, sink, checkers)
	checkers = append(checkers, ranges, node)
	wg.Go(func() { ranges.run(ctx) })
	wg.Go(func() { node.run(ctx) })

	if cache.WaitFor(ctx, "", checkers...) {
		if node.err != nil {
			return node.err
		}
		sink.Synced()
	}
	<-ctx.Done()
	return nil
}

// watch is an informer with its handler. The handler has synced when the sink has got the initial list; the informer
// alone has synced as soon as the list is in its cache.
type watch struct {
	informer     cache.SharedIndexInformer
	registration cache.ResourceEventHandlerRegistration
}

// watches builds the informers that must sync, and the wait for what this Node says. Each has its own selector, so a
// shared factory would not share anything; and none has an index, for nobody looks objects up.
func (a *API) watches(ctx context.Context, sink lb.Sink, labels *labelWatch) ([]watch, *nodeWait, error) {
	none := cache.Indexers{}
	services, err := newWatch(ctx,
		coreinformers.NewFilteredServiceInformer(a.client, metav1.NamespaceAll, a.opts.Resync, none, func(o *metav1.ListOptions) {
			o.LabelSelector = "!" + LabelProxyName
			o.FieldSelector = fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String()
		}), a.services(ctx, sink, labels))
	if err != nil {
		return nil, nil, err
	}
	endpoints, err := newWatch(ctx,
		discoveryinformers.NewFilteredEndpointSliceInformer(a.client, metav1.NamespaceAll, a.opts.Resync, none, func(o *metav1.ListOptions) {
			o.LabelSelector = "!" + LabelHeadless
		}), a.endpointSlices(ctx, sink))
	if err != nil {
		return nil, nil, err
	}
	wait := newNodeWait(a.opts)
	node, err := newWatch(ctx,
		coreinformers.NewFilteredNodeInformer(a.client, a.opts.Resync, none, func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, a.opts.NodeName).String()
		}), a.node(ctx, sink, wait))
	if err != nil {
		return nil, nil, err
	}
	wait.watch = node.registration.HasSyncedChecker()
	return []watch{services, endpoints, node}, wait, nil
}

// newWatch connects an informer that has not started to a resource.
func newWatch[T any](ctx context.Context, informer cache.SharedIndexInformer, r *resource[T]) (watch, error) {
	if err := informer.SetTransform(r.transform); err != nil {
		return watch{}, fmt.Errorf("informers: set transform: %w", err)
	}
	if err := informer.SetWatchErrorHandlerWithContext(logWatchError); err != nil {
		return watch{}, fmt.Errorf("informers: set watch error handler: %w", err)
	}
	logger := klog.FromContext(ctx)
	registration, err := informer.AddEventHandlerWithOptions(r, cache.HandlerOptions{Logger: &logger})
	if err != nil {
		return watch{}, fmt.Errorf("informers: add event handler: %w", err)
	}
	return watch{informer, registration}, nil
}

// logWatchError says why a list or watch ended. client-go goes on by itself, waiting up to 30 s between attempts; its
// own handler would do the same, but through a rate limiter that is global to the process.
func logWatchError(ctx context.Context, r *cache.Reflector, err error) {
	logger := klog.FromContext(ctx)
	switch {
	case apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, io.EOF):
		logger.V(4).Info("Watch ended, starting anew", "type", r.TypeDescription(), "err", err)
	default:
		logger.Error(err, "List or watch failed, retrying", "type", r.TypeDescription())
	}
}

func (a *API) services(ctx context.Context, sink lb.Sink, labels *labelWatch) *resource[lb.Service] {
	return &resource[lb.Service]{
		convert: func(obj any) (lb.Service, []Problem, bool) {
			if s, ok := obj.(*corev1.Service); ok {
				return FromService(s)
			}
			return lb.Service{}, nil, false
		},
		equal: lb.Service.Equal,
		set: func(n lb.Name, s lb.Service) {
			sink.SetService(s)
			labels.use(ctx, n, s.WeighsByNode())
		},
		unset: func(n lb.Name) {
			sink.DeleteService(n)
			labels.use(ctx, n, false)
		},
		report: a.reporter(ctx),
		noMeta: &metav1.ObjectMeta{},
	}
}

func (a *API) endpointSlices(ctx context.Context, sink lb.Sink) *resource[lb.EndpointSlice] {
	var names interner
	return &resource[lb.EndpointSlice]{
		convert: func(obj any) (lb.EndpointSlice, []Problem, bool) {
			s, ok := obj.(*discoveryv1.EndpointSlice)
			if !ok {
				return lb.EndpointSlice{}, nil, false
			}
			out, problems, proxied := FromEndpointSlice(s)
			names.slice(out)
			return out, problems, proxied
		},
		equal:  lb.EndpointSlice.Equal,
		set:    func(_ lb.Name, s lb.EndpointSlice) { sink.SetEndpointSlice(s) },
		unset:  sink.DeleteEndpointSlice,
		report: a.reporter(ctx),
		noMeta: &metav1.ObjectMeta{},
	}
}

func (a *API) node(ctx context.Context, sink lb.Sink, wait *nodeWait) *resource[lb.Node] {
	return &resource[lb.Node]{
		convert: func(obj any) (lb.Node, []Problem, bool) {
			n, ok := obj.(*corev1.Node)
			if !ok || n.Name != a.opts.NodeName {
				return lb.Node{}, nil, false
			}
			return FromNode(n), nil, true
		},
		equal:  lb.Node.Equal,
		set:    func(_ lb.Name, n lb.Node) { sink.SetNode(n); wait.note(n) },
		unset:  func(lb.Name) { sink.SetNode(lb.Node{}) },
		report: a.reporter(ctx),
		noMeta: &metav1.ObjectMeta{},
	}
}

func (a *API) serviceCIDRs(ctx context.Context, sink lb.Sink) *resource[[]netip.Prefix] {
	ranges := map[lb.Name][]netip.Prefix{}
	var known []netip.Prefix
	update := func() {
		if all := union(ranges); !slices.Equal(all, known) {
			known = all
			sink.SetServiceCIDRs(all)
		}
	}
	return &resource[[]netip.Prefix]{
		convert: fromServiceCIDR,
		equal:   slices.Equal[[]netip.Prefix],
		set:     func(n lb.Name, r []netip.Prefix) { ranges[n] = r; update() },
		unset:   func(n lb.Name) { delete(ranges, n); update() },
		report:  a.reporter(ctx),
		noMeta:  &metav1.ObjectMeta{},
	}
}

// reporter logs and counts problems.
func (a *API) reporter(ctx context.Context) func([]Problem) {
	logger := klog.FromContext(ctx)
	return func(problems []Problem) {
		for _, p := range problems {
			logger.Info("Ignored unusable input", "problem", p.String())
			if a.opts.OnProblem != nil {
				a.opts.OnProblem(p)
			}
		}
	}
}
