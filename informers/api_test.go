package informers

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/kube-hop/kube-hop/lb"
)

func webNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}},
	}
}

func webCIDR(name string, cidrs ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: cidrs},
	}
}

// settled waits until everything is at rest and returns the calls since the last time, sorted: sources deliver kinds
// concurrently.
func (r *recorder) settled() []string {
	synctest.Wait()
	var out []string
	for {
		select {
		case c := <-r.calls:
			out = append(out, c)
		default:
			slices.Sort(out)
			return out
		}
	}
}

func (r *recorder) expectSettled(t *testing.T, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, r.settled()); d != "" {
		t.Fatalf("calls (-want +got):\n%s", d)
	}
}

// apiTest runs the API source on a fake API server, with virtual time.
func apiTest(t *testing.T, prepare func(*fake.Clientset), body func(t *testing.T, c *fake.Clientset, r *recorder, p *problemLog), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(objects...)
		if prepare != nil {
			prepare(client)
		}
		r, p := newRecorder(), newProblemLog()
		api := NewAPI(client, APIOptions{NodeName: "Node-1", OnProblem: p.add})
		stop := running(t, api.Run, r)
		body(t, client, r, p)
		stop()
	})
}

func TestAPIInitialStateThenChanges(t *testing.T) {
	apiTest(t, nil, func(t *testing.T, c *fake.Clientset, r *recorder, _ *problemLog) {
		ctx := t.Context()
		r.expectSettled(t,
			"cidrs [10.96.0.0/12]", "cidrs []", "node node-1[10.0.0.1]", "node node-1[]",
			"set default/web", "set slice default/web-1", "synced")
		if d := cmp.Diff(webModel(), r.services[lb.Name{Namespace: "default", Name: "web"}], loosely); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(webSliceModel(), r.slices[lb.Name{Namespace: "default", Name: "web-1"}], loosely); d != "" {
			t.Error(d)
		}

		// What a proxy does not see is no change.
		svc := webService()
		svc.ResourceVersion, svc.Annotations = "2", map[string]string{"a": "b"}
		svc.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		must(t)(c.CoreV1().Services("default").Update(ctx, svc, metav1.UpdateOptions{}))
		r.expectSettled(t)

		// A Service that is no longer proxied is withdrawn, and comes back.
		svc.ResourceVersion, svc.Spec.Type = "3", corev1.ServiceTypeExternalName
		must(t)(c.CoreV1().Services("default").Update(ctx, svc, metav1.UpdateOptions{}))
		r.expectSettled(t, "delete default/web")
		svc.ResourceVersion, svc.Spec.Type = "4", corev1.ServiceTypeClusterIP
		must(t)(c.CoreV1().Services("default").Update(ctx, svc, metav1.UpdateOptions{}))
		r.expectSettled(t, "set default/web")

		// A slice that moves to another Service is the same slice.
		slice := webSlice()
		slice.ResourceVersion, slice.Labels[discoveryv1.LabelServiceName] = "2", "other"
		must(t)(c.DiscoveryV1().EndpointSlices("default").Update(ctx, slice, metav1.UpdateOptions{}))
		r.expectSettled(t, "set slice default/web-1")
		if s, _ := r.slice("web-1"); s.Service.Name != "other" {
			t.Errorf("slice of %s", s.Service)
		}
		slice.ResourceVersion, slice.Labels[LabelHeadless] = "3", ""
		must(t)(c.DiscoveryV1().EndpointSlices("default").Update(ctx, slice, metav1.UpdateOptions{}))
		r.expectSettled(t, "delete slice default/web-1")

		must(t)(c.NetworkingV1().ServiceCIDRs().Create(ctx, webCIDR("extra", "10.80.0.0/16", "10.96.0.0/12"), metav1.CreateOptions{}))
		r.expectSettled(t, "cidrs [10.80.0.0/16 10.96.0.0/12]")
		must(t)(nil, c.NetworkingV1().ServiceCIDRs().Delete(ctx, "extra", metav1.DeleteOptions{}))
		must(t)(nil, c.CoreV1().Services("default").Delete(ctx, "web", metav1.DeleteOptions{}))
		must(t)(nil, c.CoreV1().Nodes().Delete(ctx, "node-1", metav1.DeleteOptions{}))
		r.expectSettled(t, "cidrs [10.96.0.0/12]", "delete default/web", "node []")
	}, webService(), webSlice(), webNode(), webCIDR("kubernetes", "10.96.0.0/12"))
}

// must fails the test when a call to the fake API server did.
func must(t *testing.T) func(any, error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The fake API server does not apply field selectors, so other Nodes arrive too.
func TestAPIOtherNodesAndMissingNode(t *testing.T) {
	other := webNode()
	other.Name = "node-2"
	apiTest(t, nil, func(t *testing.T, _ *fake.Clientset, r *recorder, _ *problemLog) {
		r.expectSettled(t, "cidrs []", "node node-1[]")
		time.Sleep(addressWait) // virtual
		r.expectSettled(t, "synced")
	}, other)
}

// A new node's kubelet registers it first and says its addresses a moment later.
func TestAPIWaitsForNodeAddresses(t *testing.T) {
	bare := webNode()
	bare.Status.Addresses = nil
	apiTest(t, nil, func(t *testing.T, c *fake.Clientset, r *recorder, _ *problemLog) {
		r.expectSettled(t, "cidrs []", "node node-1[]", "node node-1[]")
		time.Sleep(addressWait - time.Second) // virtual
		r.expectSettled(t)
		must(t)(c.CoreV1().Nodes().Update(t.Context(), webNode(), metav1.UpdateOptions{}))
		r.expectSettled(t, "node node-1[10.0.0.1]", "synced")
	}, bare)
}

func TestAPIWaitsForPodCIDRs(t *testing.T) {
	start := func(t *testing.T) (*fake.Clientset, *recorder, <-chan error) {
		t.Helper()
		client, r := fake.NewClientset(webNode()), newRecorder()
		ended := make(chan error, 1)
		api := NewAPI(client, APIOptions{NodeName: "node-1", NeedPodCIDRs: true})
		go func() { ended <- api.Run(t.Context(), r) }()
		r.expectSettled(t, "cidrs []", "node node-1[10.0.0.1]", "node node-1[]")
		return client, r, ended
	}
	synctest.Test(t, func(t *testing.T) {
		client, r, ended := start(t)
		time.Sleep(podCIDRWait - time.Second) // virtual
		node := webNode()
		node.Spec.PodCIDRs = []string{"10.244.1.0/24"}
		must(t)(client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}))
		r.expectSettled(t, "node node-1[10.0.0.1]", "synced")
		if len(ended) > 0 {
			t.Errorf("ended: %v", <-ended)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, r, ended := start(t)
		time.Sleep(podCIDRWait) // virtual
		r.expectSettled(t)
		if err := <-ended; !errors.Is(err, ErrNoPodCIDRs) {
			t.Errorf("without podCIDRs it ends with %v", err)
		}
	})
}

func TestAPISelectors(t *testing.T) {
	apiTest(t, nil, func(t *testing.T, c *fake.Clientset, r *recorder, _ *problemLog) {
		r.settled()
		want := map[string]string{
			"services":       "!service.kubernetes.io/service-proxy-name spec.clusterIP!=None",
			"endpointslices": "!service.kubernetes.io/headless ",
			"nodes":          " metadata.name=node-1",
			"servicecidrs":   " ",
		}
		got := map[string]string{}
		for _, a := range c.Actions() {
			if l, ok := a.(clienttesting.ListAction); ok {
				got[a.GetResource().Resource] = l.GetListRestrictions().Labels.String() + " " + l.GetListRestrictions().Fields.String()
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestAPIServiceCIDRsUnavailable(t *testing.T) {
	resource := schema.GroupResource{Group: "networking.k8s.io", Resource: "servicecidrs"}
	for name, c := range map[string]struct {
		err   error
		retry time.Duration
	}{
		"404": {apierrors.NewNotFound(resource, ""), rangeRetryAbsent},
		"403": {apierrors.NewForbidden(resource, "", errors.New("no RBAC")), rangeRetryAbsent},
		"503": {apierrors.NewServiceUnavailable("storage is initializing"), rangeRetryFirst},
	} {
		t.Run(name, func(t *testing.T) {
			var fixed atomic.Bool
			apiTest(t, func(client *fake.Clientset) {
				client.PrependReactor("list", "servicecidrs", func(clienttesting.Action) (bool, runtime.Object, error) {
					return !fixed.Load(), nil, c.err
				})
			}, func(t *testing.T, _ *fake.Clientset, r *recorder, _ *problemLog) {
				r.expectSettled(t, "cidrs []", "node node-1[10.0.0.1]", "node node-1[]", "set default/web", "synced")
				fixed.Store(true)
				time.Sleep(c.retry) // virtual
				r.expectSettled(t, "cidrs [10.96.0.0/12]")
			}, webService(), webNode(), webCIDR("kubernetes", "10.96.0.0/12"))
		})
	}
}

// While nobody answers, nothing says that there are no ranges; nor does a server that has just started, and forbids
// everything until it has read its roles.
func TestAPIUnreachableThenReachable(t *testing.T) {
	for name, err := range map[string]error{
		"refused":   errors.New("connection refused"),
		"forbidden": apierrors.NewForbidden(schema.GroupResource{Resource: "anything"}, "", errors.New("roles not read yet")),
	} {
		t.Run(name, func(t *testing.T) {
			var fixed atomic.Bool
			apiTest(t, func(client *fake.Clientset) {
				client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
					return !fixed.Load(), nil, err
				})
			}, func(t *testing.T, _ *fake.Clientset, r *recorder, _ *problemLog) {
				time.Sleep(10 * time.Second) // virtual
				r.expectSettled(t, "cidrs []", "node node-1[]")
				fixed.Store(true)
				time.Sleep(5 * time.Minute)
				r.expectSettled(t, "cidrs [10.96.0.0/12]", "set default/web", "synced")
			}, webService(), webCIDR("kubernetes", "10.96.0.0/12"))
		})
	}
}

func TestAPISyncedAfterEveryKind(t *testing.T) {
	for _, kind := range []string{"services", "endpointslices", "nodes", "servicecidrs"} {
		t.Run(kind, func(t *testing.T) {
			var fixed atomic.Bool
			apiTest(t, func(client *fake.Clientset) {
				client.PrependReactor("list", kind, func(clienttesting.Action) (bool, runtime.Object, error) {
					return !fixed.Load(), nil, errors.New("connection refused")
				})
			}, func(t *testing.T, _ *fake.Clientset, r *recorder, _ *problemLog) {
				time.Sleep(time.Minute) // virtual
				if calls := r.settled(); slices.Contains(calls, "synced") {
					t.Errorf("synced too early: %q", calls)
				}
				fixed.Store(true)
				time.Sleep(5 * time.Minute)
				if calls := r.settled(); !slices.Contains(calls, "synced") {
					t.Errorf("not synced: %q", calls)
				}
			}, webService(), webSlice(), webNode(), webCIDR("kubernetes", "10.96.0.0/12"))
		})
	}
}

// slowSink takes its time for every Service.
type slowSink struct {
	*recorder
	gate chan struct{}
}

func (s slowSink) SetService(v lb.Service) {
	<-s.gate
	s.recorder.SetService(v)
}

// The list being in the informer's cache is not enough.
func TestAPISyncedAfterDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := slowSink{newRecorder(), make(chan struct{})}
		stop := running(t, NewAPI(fake.NewClientset(webService(), webNode()), APIOptions{NodeName: "node-1"}).Run, r)
		r.expectSettled(t, "cidrs []", "node node-1[10.0.0.1]", "node node-1[]")
		close(r.gate)
		r.expectSettled(t, "set default/web", "synced")
		stop()
	})
}

func TestAPIProblemsAreReportedOncePerEpisode(t *testing.T) {
	svc := webService()
	svc.Spec.ExternalIPs = []string{"bad"}
	const bad = `Service default/web: spec.externalIPs[0]: "bad": must be an IP address; ignored`
	const worse = `Service default/web: spec.externalIPs[1]: "worse": must be an IP address; ignored`
	apiTest(t, nil, func(t *testing.T, c *fake.Clientset, r *recorder, p *problemLog) {
		for i, step := range []struct {
			ips  []string
			want []string
		}{
			{nil, []string{bad}}, // as it was at the start
			{[]string{"bad", "192.0.2.1"}, nil},
			{[]string{"bad", "worse"}, []string{worse}},
			{[]string{"192.0.2.1"}, nil},
			{[]string{"bad"}, []string{bad}},
		} {
			if step.ips != nil {
				next := webService()
				next.ResourceVersion, next.Spec.ExternalIPs = string(rune('1'+i)), step.ips
				must(t)(c.CoreV1().Services("default").Update(t.Context(), next, metav1.UpdateOptions{}))
			}
			r.settled()
			if d := cmp.Diff(step.want, p.drain()); d != "" {
				t.Fatalf("step %d (-want +got):\n%s", i, d)
			}
		}
	}, svc)
}

func TestAPIResyncHandsOverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := newRecorder(), newProblemLog()
		svc := webService()
		svc.Spec.ExternalIPs = []string{"bad"}
		api := NewAPI(fake.NewClientset(svc, webNode()), APIOptions{NodeName: "node-1", Resync: time.Minute, OnProblem: p.add})
		stop := running(t, api.Run, r)
		r.expectSettled(t, "cidrs []", "node node-1[10.0.0.1]", "node node-1[]", "set default/web", "synced")
		p.drain()
		time.Sleep(90 * time.Second) // virtual
		if calls := r.settled(); !slices.Contains(calls, "set default/web") {
			t.Errorf("calls %q", calls)
		}
		if again := p.drain(); again != nil {
			t.Errorf("reported again: %q", again)
		}
		stop()
	})
}

func TestAPINeedsNodeName(t *testing.T) {
	if err := NewAPI(fake.NewClientset(), APIOptions{NodeName: " "}).Run(t.Context(), newRecorder()); err == nil {
		t.Error("no error")
	}
}

func TestResourceTransform(t *testing.T) {
	r := NewAPI(nil, APIOptions{}).services(t.Context(), newRecorder(), newLabelWatch(&API{}, nil))
	first, err := r.transform(webService())
	if err != nil {
		t.Fatal(err)
	}
	rec, ok := first.(*record[lb.Service])
	if !ok {
		t.Fatalf("kept as %T", first)
	}
	again, err := r.transform(first)
	if err != nil || again != first {
		t.Errorf("second transform: %v, %v", again, err)
	}
	if key, err := cache.MetaNamespaceKeyFunc(rec); key != "default/web" || err != nil {
		t.Errorf("key %q, %v", key, err)
	}
}

func TestResourceTombstones(t *testing.T) {
	sink := newRecorder()
	r := NewAPI(nil, APIOptions{}).services(t.Context(), sink, newLabelWatch(&API{}, sink))
	rec, err := r.transform(webService())
	if err != nil {
		t.Fatal(err)
	}
	skipped := webService()
	skipped.Spec.ClusterIP = "None"
	none, err := r.transform(skipped)
	if err != nil {
		t.Fatal(err)
	}
	for _, obj := range []any{
		rec,
		cache.DeletedFinalStateUnknown{Key: "default/web", Obj: rec},
		cache.DeletedFinalStateUnknown{Key: "default/web"},
	} {
		r.OnDelete(obj)
		sink.expect(t, "delete default/web")
	}
	r.OnDelete(none)
	r.OnDelete("nonsense")
	sink.quiet(t)
}

func TestInternerSharesNames(t *testing.T) {
	var in interner
	e := func() lb.EndpointSlice {
		return lb.EndpointSlice{Endpoints: []lb.Endpoint{{NodeName: "n", Zone: "z", HintZones: []string{"z"}, HintNodes: []string{"a", "b"}}}}
	}
	a, b := e(), e()
	in.slice(a)
	in.slice(b)
	if !a.Equal(b) || !a.Equal(e()) {
		t.Errorf("changed: %v %v", a, b)
	}
	if &a.Endpoints[0].HintZones[0] != &b.Endpoints[0].HintZones[0] {
		t.Error("hints not shared")
	}
}
