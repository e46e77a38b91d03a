package informers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/lb"
)

// deadline bounds every wait of a test; none comes near it.
const deadline = 30 * time.Second

// recorder is a sink that keeps the state and the calls.
type recorder struct {
	calls chan string

	mu       sync.Mutex
	services map[lb.Name]lb.Service
	slices   map[lb.Name]lb.EndpointSlice
	node     lb.Node
	cidrs    []netip.Prefix
	synced   int
}

func newRecorder() *recorder {
	return &recorder{
		calls:    make(chan string, 10000),
		services: map[lb.Name]lb.Service{}, slices: map[lb.Name]lb.EndpointSlice{},
	}
}

func (r *recorder) record(call string, change func()) {
	r.mu.Lock()
	change()
	r.mu.Unlock()
	r.calls <- call
}

func (r *recorder) SetService(s lb.Service) {
	r.record("set "+s.Name.String(), func() { r.services[s.Name] = s })
}

func (r *recorder) DeleteService(n lb.Name) {
	r.record("delete "+n.String(), func() { delete(r.services, n) })
}

func (r *recorder) SetEndpointSlice(s lb.EndpointSlice) {
	r.record("set slice "+s.Name.String(), func() { r.slices[s.Name] = s })
}

func (r *recorder) DeleteEndpointSlice(n lb.Name) {
	r.record("delete slice "+n.String(), func() { delete(r.slices, n) })
}

func (r *recorder) SetNode(n lb.Node) {
	r.record(fmt.Sprint("node ", n.Name, n.Addresses), func() { r.node = n })
}

func (r *recorder) SetNodeLabels(node string, labels map[string]string) {
	r.record(fmt.Sprint("labels of ", node, " ", labels), func() {})
}

func (r *recorder) SetServiceCIDRs(p []netip.Prefix) {
	r.record(fmt.Sprint("cidrs ", p), func() { r.cidrs = p })
}
func (r *recorder) Synced() { r.record("synced", func() { r.synced++ }) }

// await reads calls up to want, and returns those before it, sorted when order is up to goroutines.
func (r *recorder) await(t *testing.T, want string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	var seen []string
	for {
		select {
		case c := <-r.calls:
			if c == want {
				return seen
			}
			seen = append(seen, c)
		case <-ctx.Done():
			t.Fatalf("no %q, but %q", want, seen)
		}
	}
}

// expect reads exactly these calls.
func (r *recorder) expect(t *testing.T, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for i, w := range want {
		select {
		case c := <-r.calls:
			if c != w {
				t.Fatalf("call %d: %q, want %q", i, c, w)
			}
		case <-ctx.Done():
			t.Fatalf("call %d: none, want %q", i, w)
		}
	}
}

// quiet fails when calls are left.
func (r *recorder) quiet(t *testing.T) {
	t.Helper()
	select {
	case c := <-r.calls:
		t.Errorf("unexpected call %q", c)
	default:
	}
}

func (r *recorder) service(n string) (lb.Service, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.services[lb.Name{Namespace: "default", Name: n}]
	return s, ok
}

func (r *recorder) slice(n string) (lb.EndpointSlice, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.slices[lb.Name{Namespace: "default", Name: n}]
	return s, ok
}

// snapshot is the state as a Snapshot.
func (r *recorder) snapshot() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Snapshot{
		Services: slices.SortedFunc(maps.Values(r.services), func(a, b lb.Service) int { return a.Name.Compare(b.Name) }),
		Slices: slices.SortedFunc(maps.Values(r.slices), func(a, b lb.EndpointSlice) int {
			return cmp.Or(a.Name.Compare(b.Name))
		}),
		Node:         r.node,
		ServiceCIDRs: r.cidrs,
	}
}

// problemLog collects problems from several goroutines.
type problemLog struct{ lines chan string }

func newProblemLog() *problemLog { return &problemLog{make(chan string, 1000)} }

func (l *problemLog) add(p Problem)         { l.lines <- p.String() }
func (l *problemLog) addFile(p FileProblem) { l.lines <- p.String() }

func (l *problemLog) await(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	select {
	case s := <-l.lines:
		return s
	case <-ctx.Done():
		t.Fatal("no problem reported")
		return ""
	}
}

func (l *problemLog) drain() []string {
	var out []string
	for {
		select {
		case s := <-l.lines:
			out = append(out, s)
		default:
			slices.Sort(out)
			return out
		}
	}
}

// running starts a source and returns a function that stops it and waits for it to end.
func running(t *testing.T, run func(context.Context, lb.Sink) error, sink lb.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, sink) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(deadline):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}
