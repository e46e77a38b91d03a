package informers

import (
	"context"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/lb"
)

// labelWatch watches the labels of all Nodes, while there is a Service whose weights look at them: every node of the
// cluster would else keep a watch on every other for nothing. Only metadata is asked for.
type labelWatch struct {
	api  *API
	sink lb.Sink

	mu     sync.Mutex
	users  map[lb.Name]struct{}
	stop   context.CancelFunc // nil while nothing is watched
	closed bool
	done   sync.WaitGroup
}

func newLabelWatch(a *API, sink lb.Sink) *labelWatch {
	return &labelWatch{api: a, sink: sink, users: map[lb.Name]struct{}{}}
}

// use notes whether a Service needs labels, and starts or ends the watch when it is the first or was the last.
func (w *labelWatch) use(ctx context.Context, n lb.Name, needed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if needed {
		w.users[n] = struct{}{}
	} else {
		delete(w.users, n)
	}
	switch {
	case w.api.opts.Metadata == nil || w.closed:
	case len(w.users) > 0 && w.stop == nil:
		var watching context.Context
		watching, w.stop = context.WithCancel(ctx)
		w.done.Go(func() { w.watch(watching) })
	case len(w.users) == 0 && w.stop != nil:
		w.stop()
		w.stop = nil
	}
}

// close ends the watch for good and waits for its end.
func (w *labelWatch) close() {
	w.mu.Lock()
	w.closed = true
	if w.stop != nil {
		w.stop()
	}
	w.mu.Unlock()
	w.done.Wait()
}

// watch runs until ctx ends. The labels that were handed over stay with the sink, where nobody looks at them any more;
// the next watch brings them up to date.
func (w *labelWatch) watch(ctx context.Context) {
	nodes := corev1.SchemeGroupVersion.WithResource("nodes")
	informer := metadatainformer.NewFilteredMetadataInformer(w.api.opts.Metadata, nodes, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	if _, err := newWatch(ctx, informer, w.nodes()); err != nil { // only for an informer that has already started
		klog.FromContext(ctx).Error(err, "Labels of nodes not watched; weights by them do not apply")
		return
	}
	informer.RunWithContext(ctx)
}

func (w *labelWatch) nodes() *resource[map[string]string] {
	return &resource[map[string]string]{
		convert: func(obj any) (map[string]string, []Problem, bool) {
			n, ok := obj.(*metav1.PartialObjectMetadata)
			if !ok {
				return nil, nil, false
			}
			if n.Labels == nil {
				return map[string]string{}, nil, true
			}
			return n.Labels, nil, true
		},
		equal:  maps.Equal[map[string]string, map[string]string],
		set:    func(n lb.Name, labels map[string]string) { w.sink.SetNodeLabels(n.Name, labels) },
		unset:  func(n lb.Name) { w.sink.SetNodeLabels(n.Name, nil) },
		report: func([]Problem) {},
		noMeta: &metav1.ObjectMeta{},
	}
}

// NewMetadataClient returns a client for the metadata of objects, by the rules of [NewClient].
func NewMetadataClient(kubeconfig, master string, qps float32, burst int) (metadata.Interface, error) {
	config, err := clientConfig(kubeconfig, master)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = qps, burst
	return metadata.NewForConfig(config) //nolint:wrapcheck // its errors name what is wrong with the configuration
}
