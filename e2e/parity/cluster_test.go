//go:build e2e && linux

package parity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

const (
	// podPort is where every pod answers, on all protocols.
	podPort = 8080
	// namespace is where the tests' Services are.
	namespace = "default"
	// limit is how long a condition may take to come true. It only ends a test that hangs: kube-proxy takes seconds for
	// a change on an emulated machine, and longer for many.
	limit = 4 * time.Minute
	// shortestWait and longestWait are between two tries of a condition.
	shortestWait, longestWait = 10 * time.Millisecond, 320 * time.Millisecond
)

var protos = []testbed.Proto{testbed.TCP, testbed.UDP, testbed.SCTP}

// cluster is what the tests share: the bed of package testbed, a third node without a proxy, a real API server, and
// the subject on N1 and N2.
type cluster struct {
	*testbed.Bed

	// N3 is a node without a proxy, whose packets to Service addresses go by way of N1; C1 is a pod on it.
	N3, C1 *testbed.Host

	client kubernetes.Interface

	subject         subject
	version, kernel string
	cp              *controlplane.ControlPlane
	dir, kubeconfig string
	daemons         map[*testbed.Host]*testbed.Proc
	extra           map[*testbed.Host][]string // flags of the daemon, beyond the usual ones
	services        int                        // made so far; each has addresses of its own
	spares          int                        // nodes made for single rows
	marker          marker
}

var common = struct {
	build func() (*cluster, error)
	used  bool
}{build: sync.OnceValues(func() (*cluster, error) { return newCluster(context.Background()) })}

func TestMain(m *testing.M) {
	code := m.Run()
	if common.used {
		if c, err := common.build(); err == nil {
			if err := c.close(); err != nil {
				fmt.Fprintln(os.Stderr, "closing the cluster:", err)
				code = max(code, 1)
			}
		}
	}
	os.Exit(code)
}

// shared returns the cluster, which the first test builds.
func shared(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("CONTROLPLANE_BIN") == "" || os.Getenv("KUBE_HOP") == "" {
		if os.Getenv("REQUIRE_KERNEL") == "1" {
			t.Fatal("REQUIRE_KERNEL=1: needs root, CONTROLPLANE_BIN and KUBE_HOP")
		}
		t.Skip("needs root, CONTROLPLANE_BIN and KUBE_HOP")
	}
	common.used = true
	c, err := common.build()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newCluster(ctx context.Context) (_ *cluster, err error) {
	c := &cluster{daemons: map[*testbed.Host]*testbed.Proc{}, extra: map[*testbed.Host][]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.subject, err = chosenSubject(); err != nil {
		return nil, err
	}
	if c.version, err = c.subject.version(ctx); err != nil {
		return nil, err
	}
	if c.kernel, err = kernelRelease(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "kube-hop-parity-"); err != nil {
		return nil, err
	}
	if err := c.makeBed(ctx); err != nil {
		return nil, err
	}
	if err := c.startControlPlane(ctx); err != nil {
		return nil, err
	}
	for _, n := range c.proxied() {
		if err := c.startDaemon(ctx, n); err != nil {
			return nil, err
		}
	}
	return c, c.settle(ctx)
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// proxied returns the nodes on which the subject runs.
func (c *cluster) proxied() []*testbed.Host { return []*testbed.Host{c.N1, c.N2} }

// makeBed makes the nodes, and an echo server for each protocol on every pod.
func (c *cluster) makeBed(ctx context.Context) (err error) {
	if c.Bed, err = testbed.New(ctx, testbed.Options{Timeout: patience, Nodes: []testbed.NodeSpec{
		{Name: "n1", Pods: []string{"a1", "a2"}},
		{Name: "n2", Pods: []string{"b1", "b2"}},
		{Name: "n3", Pods: []string{"c1"}},
	}}); err != nil {
		return err
	}
	c.N3, c.C1 = c.Host("n3"), c.Host("c1")
	for _, n := range c.Nodes() {
		if err := n.Do(noRateLimit); err != nil {
			return err
		}
	}
	for _, r := range testbed.ServiceRanges() {
		if err := c.N3.RouteVia(r, c.N1); err != nil {
			return err
		}
	}
	for _, pod := range []*testbed.Host{c.A1, c.A2, c.B1, c.B2} {
		for _, proto := range protos {
			if _, err := pod.Serve(ctx, proto, podPort); err != nil {
				return err
			}
		}
	}
	return nil
}

// noRateLimit lets the kernel refuse as often as tests ask, which is more often than an ordinary client would.
func noRateLimit() error {
	for _, path := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) startControlPlane(ctx context.Context) error {
	host, err := c.AddOutside(ctx, "cp")
	if err != nil {
		return err
	}
	c.cp, err = controlplane.Start(ctx, controlplane.Options{
		Dir: filepath.Join(c.dir, "cp"), BinDir: os.Getenv("CONTROLPLANE_BIN"),
		Netns: host.NetnsName, ListenAddr: host.Addr4, ServiceCIDRs: testbed.ServiceRanges()[:2],
	})
	if err != nil {
		return err
	}
	c.client, c.kubeconfig = c.cp.Client(), c.cp.Kubeconfig()
	for _, n := range c.proxied() {
		if _, err := controlplane.ApplyNode(ctx, c.client, controlplane.NewNode(n.Name, n.Addr4, n.Addr6)); err != nil {
			return err
		}
	}
	return nil
}

// startDaemon starts the subject on the node.
func (c *cluster) startDaemon(ctx context.Context, n *testbed.Host) error {
	return c.startProxy(ctx, c.subject, n)
}

// startProxy starts any proxy on the node.
func (c *cluster) startProxy(ctx context.Context, s subject, n *testbed.Host) error {
	p, err := n.Start(context.WithoutCancel(ctx), s.binary, s.args(n, c.kubeconfig, c.extra[n]...), c.logOf(n))
	if err != nil {
		return err
	}
	c.daemons[n] = p
	return nil
}

func (c *cluster) logOf(n *testbed.Host) string { return filepath.Join(c.dir, n.Name+".log") }

// stopDaemon ends the subject on the node as a DaemonSet would, and waits for it. How it ends does not matter:
// kube-proxy dies by the signal.
func (c *cluster) stopDaemon(ctx context.Context, n *testbed.Host) error {
	p := c.daemons[n]
	delete(c.daemons, n)
	err := p.Stop(ctx, unix.SIGTERM)
	select {
	case <-p.Done():
		return nil
	default:
		return err
	}
}

// dead returns an error if a daemon that should run does not.
func (c *cluster) dead() error {
	for n, p := range c.daemons {
		select {
		case <-p.Done():
			return fmt.Errorf("the proxy on %s has ended:\n%s", n, p.Tail(30))
		default:
		}
	}
	return nil
}

// await tries until it succeeds, a daemon ends or the limit has passed, and says what was wrong last. It tries less and less
// often, since trying takes from a slow subject the processor that it is slow on.
func (c *cluster) await(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		err := try()
		if err == nil {
			return nil
		}
		if dead := c.dead(); dead != nil {
			return fmt.Errorf("%s: %w; last: %w", what, dead, err)
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("%s: %w; last: %w", what, context.Cause(ctx), err)
		}
	}
}

func (c *cluster) close() error {
	if c.cp != nil {
		c.cp.Close()
	}
	var err error
	if c.Bed != nil {
		err = c.Bed.Close()
	}
	return errors.Join(err, c.keepLogs(), os.RemoveAll(c.dir))
}

// keepLogs copies the daemons' logs to where the results go.
func (c *cluster) keepLogs() error {
	out := os.Getenv("PARITY_OUT")
	if out == "" {
		return nil
	}
	var errs []error
	for n := range maps.Keys(c.daemons) {
		log, err := os.ReadFile(c.logOf(n))
		name := strings.Join([]string{c.subject.name, n.Name, "log"}, ".")
		errs = append(errs, err, os.WriteFile(filepath.Join(out, name), log, 0o644))
	}
	return errors.Join(errs...)
}
