//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// errUnfinished ends a run whose subject is not done in the time that the plan gives. It is a result and no error.
var errUnfinished = errors.New("not done in time")

// TestBench measures the subject that BENCH_SUBJECT names at every size, and ends with the first one that it is not up
// to: larger ones would take longer still.
func TestBench(t *testing.T) {
	p := planned(t)
	s, err := chosenSubject()
	if err != nil {
		t.Fatal(err)
	}
	if err := warm(t.Context(), p, s); err != nil {
		t.Fatal(err)
	}
	if p.count {
		runtime.GOMAXPROCS(4) // with as many as processors, one, a client that waits in a system call is in the server's way
	}
	for _, n := range p.sizes {
		var unfinished error
		t.Run(fmt.Sprintf("services=%d", n), func(t *testing.T) {
			err := measure(t, p, s, n)
			if errors.Is(err, errUnfinished) {
				unfinished = err
			} else if err != nil {
				t.Error(err)
			}
		})
		if unfinished != nil {
			fmt.Printf("== %s is not measured with more than %d Services: %v\n", s.name, n, unfinished)
			return
		}
	}
}

// warm runs the subject and the watcher once with few Services and measures nothing: the kernel loads modules and the
// machine reads programs, which only the first run of all would pay for.
func warm(ctx context.Context, p plan, s subject) (err error) {
	r, err := newRun(ctx, p, s, smallest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	watcher, _, _, err := r.startWatcher(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(watcher.Kill(), os.Remove(watcher.Log())); err != nil {
		return err
	}
	if _, err := r.startDaemon(ctx); err != nil {
		return err
	}
	_, err = r.untilSynced(ctx)
	return err
}

// The steps that there are also where instructions are counted.
const (
	bare  = "data path without a proxy"
	start = "start"
	path  = "data path"
)

func hasCounts(step string) bool { return step == bare || step == start || step == path }

// measure takes all figures of a subject at one size. A step that fails does not keep the later ones from being tried,
// unless the subject does not run.
func measure(t *testing.T, p plan, s subject, n int) error {
	r, err := newRun(t.Context(), p, s, n)
	if err != nil {
		return err
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"floor", r.floor},
		{bare, r.bare}, // before anybody watches the API server, which stands still meanwhile
		{"start without a proxy", r.watchStart},
		{start, r.sync},
		{"restart", r.restart},
		{"idle", r.idle},
		{"changes", r.changes},
		{"changes without a proxy", r.bareChanges},
		{"burst", r.burst},
		{"churn", r.churn},
		{"memory", r.memory},
		// The API server stands still for so long that clients give their connections up, and list everything anew.
		{path, r.path},
		{"churn without a proxy", r.watchChurn},
	} {
		if r.count && !hasCounts(step.name) || step.name != start && !r.steps.MatchString(step.name) {
			continue
		}
		switch err := r.profiled(t.Context(), step.name, step.do); {
		case errors.Is(err, errUnfinished), err != nil && (step.name == start || r.ended()):
			return fmt.Errorf("%s: %w", step.name, err)
		case err != nil:
			t.Errorf("%s: %v", step.name, err)
		}
	}
	return nil
}

// run is one subject on one node, with an API server that has n Services and the marker.
type run struct {
	plan
	subject

	services        int
	version, kernel string

	dir, kubeconfig string
	bed             *testbed.Bed
	node            *testbed.Host
	cp              *controlplane.ControlPlane
	client          kubernetes.Interface
	kernelView      observer
	daemon          *testbed.Proc
	round           []int // of the last endpoint of each Service
	// telling is the processor time that the daemon has used to tell how many syncs there were.
	telling time.Duration
}

func newRun(ctx context.Context, p plan, s subject, n int) (_ *run, err error) {
	r := &run{plan: p, subject: s, services: n, round: make([]int, n)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.version, err = s.version(ctx); err != nil {
		return nil, err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	r.kernel = unix.ByteSliceToString(u.Release[:])
	if r.dir, err = os.MkdirTemp("", "kube-hop-bench-"); err != nil {
		return nil, err
	}
	r.bed, err = testbed.New(ctx, testbed.Options{
		Nodes: []testbed.NodeSpec{{Name: "n1", Pods: []string{"a1", "a2"}}}, Outside: []string{"cp"}, Timeout: 30 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	r.node = r.bed.N1
	if err := r.startControlPlane(ctx); err != nil {
		return nil, err
	}
	r.kernelView, err = newObserver(s, r.node)
	return r, err
}

// startControlPlane starts the API server with a copy of what was stored, and adds the node and the marker.
func (r *run) startControlPlane(ctx context.Context) (err error) {
	host := r.bed.Host("cp")
	r.cp, err = controlplane.Start(ctx, controlplane.Options{
		Dir: filepath.Join(r.dir, "cp"), BinDir: r.bin, Data: r.storePath(r.services),
		Netns: host.NetnsName, ListenAddr: host.Addr4, ServiceCIDRs: serviceRanges(),
	})
	if err != nil {
		return err
	}
	r.client, r.kubeconfig = r.cp.Client(), r.cp.Kubeconfig()
	if _, err := controlplane.ApplyNode(ctx, r.client, controlplane.NewNode(r.node.Name, r.node.Addr4, r.node.Addr6)); err != nil {
		return err
	}
	if _, err := r.bed.A2.Serve(ctx, testbed.TCP, podPort); err != nil {
		return err
	}
	return createMarker(ctx, r.client, r.bed.A2.Addr4)
}

func (r *run) close() error {
	var errs []error
	if r.daemon != nil {
		errs = append(errs, r.daemon.Kill(), r.keepLog())
	}
	if r.kernelView != nil {
		errs = append(errs, r.kernelView.close())
	}
	if r.cp != nil {
		r.cp.Close()
	}
	if r.bed != nil {
		errs = append(errs, r.bed.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// keepLog copies the subject's log to where the results go.
func (r *run) keepLog() error {
	log, err := os.ReadFile(r.daemon.Log())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, fmt.Sprintf("%s-%d.log", r.name, r.services)), log, 0o644)
}

// note keeps a figure.
func (r *run) note(figure string, value float64) error {
	return r.noteResult(result.Result{Figure: figure, Value: value})
}

// noteResult keeps a figure with what there is to say about it; it fills in what belongs to the run.
func (r *run) noteResult(res result.Result) error {
	res.Subject, res.Services, res.Version, res.Kernel = r.name, r.services, r.version, r.kernel
	res.Shared, res.Date = r.shared, time.Now().Format(time.DateOnly)
	if r.count {
		counted, ok := res.Count()
		if !ok {
			return nil
		}
		res = counted
	}
	fmt.Println(res)
	if r.profile > 0 || len(r.tried) > 0 {
		return nil
	}
	return result.Append(filepath.Join(r.out, r.name+".jsonl"), res)
}
