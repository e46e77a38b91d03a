//go:build e2e && linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
)

// podPort is where every pod of a cluster answers, on all protocols.
const podPort = 8080

var protos = []testbed.Proto{testbed.TCP, testbed.UDP, testbed.SCTP}

// cluster is a bed with a folder of YAML and a daemon per node.
type cluster struct {
	*testbed.Bed

	dir   string
	nodes []*node
	marks int // how often the marker was moved
}

// node is a node of the bed, what its daemon reads and what its kernel holds.
type node struct {
	*testbed.Host

	folder string
	args   []string
	table  *ipvsnl.Table // of the node's namespace; never used to change it
	daemon *testbed.Proc // nil while none runs
}

// options of a cluster. The zero value is two nodes with two pods each, whose daemons do not verify the kernel's
// state while a test lasts: in an emulated guest that takes seconds, in which a change has to wait.
type options struct {
	nodes  []testbed.NodeSpec
	args   []string          // further flags of the daemons
	before func(*node) error // runs on each node before its daemon starts
}

// oneNode is enough for tests of what a daemon does to its own kernel.
var oneNode = []testbed.NodeSpec{{Name: "n1", Pods: []string{"a1", "a2"}}}

// common is a cluster that tests share. It is built when the first of them asks for it.
type common struct {
	build func() (*cluster, error)
	used  bool
}

var (
	twoNodes = common{build: sync.OnceValues(func() (*cluster, error) {
		return newCluster(context.Background(), options{})
	})}
	quickNode = common{build: sync.OnceValues(func() (*cluster, error) {
		return newCluster(context.Background(), options{nodes: oneNode, args: []string{
			"--ipvs-sync-period", quickPeriod.String(), "--ipvs-scheduler", "wlc",
		}})
	})}
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range []*common{&twoNodes, &quickNode} {
		if !s.used {
			continue
		}
		if c, err := s.build(); err == nil {
			if err := c.close(); err != nil {
				fmt.Fprintln(os.Stderr, "closing a shared cluster:", err)
				code = max(code, 1)
			}
		}
	}
	os.Exit(code)
}

// setUp begins the message of a test that failed before its cluster was there, which says nothing about what is tested;
// hack/breaks looks for it.
const setUp = "set-up: "

func (s *common) use(t *testing.T) *cluster {
	t.Helper()
	require(t)
	s.used = true
	c, err := s.build()
	if err != nil {
		t.Fatal(setUp, err)
	}
	c.reportLogs(t)
	return c
}

// shared returns the cluster of two nodes that tests have in common.
func shared(t *testing.T) *cluster { t.Helper(); return twoNodes.use(t) }

// quick returns the cluster of one node whose daemon verifies the kernel's state every quickPeriod.
func quick(t *testing.T) *cluster { t.Helper(); return quickNode.use(t) }

// fresh returns a cluster for this test alone.
func fresh(t *testing.T, o options) *cluster {
	t.Helper()
	require(t)
	c, err := newCluster(t.Context(), o)
	if err != nil {
		t.Fatal(setUp, err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	c.reportLogs(t)
	return c
}

// require skips, or fails where REQUIRE_KERNEL says that nothing may be missing.
func require(t *testing.T) {
	t.Helper()
	var missing error
	switch {
	case os.Geteuid() != 0:
		missing = errors.New("network namespaces need root")
	case os.Getenv("KUBE_HOP") == "":
		missing = errors.New("KUBE_HOP does not name the binary")
	default:
		table, err := ipvsnl.Open(ipvsnl.Options{})
		if err == nil {
			table.Close()
		}
		missing = errors.Join(err, testbed.ProbeSCTP())
	}
	if missing == nil {
		return
	}
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		t.Fatal(setUp, "REQUIRE_KERNEL=1: ", missing)
	}
	t.Skip(missing)
}

// reportLogs shows the ends of the daemons' logs if the test fails.
func (c *cluster) reportLogs(t *testing.T) {
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if t.Failed() && n.daemon != nil {
				t.Logf("last lines of kube-hop on %s:\n%s", n, n.daemon.Tail(25))
			}
		}
	})
}

// newCluster builds a bed and starts its daemons; they have programmed the marker when it returns.
func newCluster(ctx context.Context, o options) (_ *cluster, err error) {
	c := &cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.Bed, err = testbed.New(ctx, testbed.Options{Nodes: o.nodes, Timeout: 5 * time.Second}); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "kube-hop-suite-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(c.dir, 0o755); err != nil { // an unprivileged user renders from it
		return nil, err
	}
	for _, h := range c.Nodes() {
		n := &node{Host: h, folder: filepath.Join(c.dir, h.Name), args: o.args}
		c.nodes = append(c.nodes, n)
		if err := n.prepare(); err != nil {
			return nil, err
		}
	}
	for _, pod := range c.pods() {
		for _, proto := range protos {
			if _, err := pod.Serve(ctx, proto, podPort); err != nil {
				return nil, err
			}
		}
	}
	if err := c.write("nodes", nodesManifest(c.Nodes())); err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if o.before != nil {
			if err := o.before(n); err != nil {
				return nil, err
			}
		}
		if err := n.launch(ctx); err != nil {
			return nil, err
		}
	}
	for _, n := range c.nodes {
		if err := n.awaitStart(); err != nil {
			return nil, err
		}
	}
	return c, c.settleErr()
}

// prepare makes the node's folder and opens its kernel's table. The kernel must not limit how many refusals it
// sends: clients here ask more often than an ordinary one would.
func (n *node) prepare() error {
	if err := os.Mkdir(n.folder, 0o755); err != nil {
		return err
	}
	return n.Do(func() (err error) {
		for _, path := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte("0"), 0); err != nil {
				return err
			}
		}
		n.table, err = ipvsnl.Open(ipvsnl.Options{})
		return err
	})
}

// pods returns the bed's pods.
func (c *cluster) pods() []*testbed.Host {
	var out []*testbed.Host
	for _, name := range []string{"a1", "a2", "b1", "b2"} {
		if h := c.Host(name); h != nil {
			out = append(out, h)
		}
	}
	return out
}

func (c *cluster) close() error {
	for _, n := range c.nodes {
		if n.table != nil {
			n.table.Close()
		}
	}
	var err error
	if c.Bed != nil {
		err = c.Bed.Close()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// eventually tries until it succeeds, and fails the test with the last error when the limit has passed.
func eventually(t *testing.T, limit time.Duration, try func() error) {
	t.Helper()
	if err := await(limit, try); err != nil {
		t.Fatal(err)
	}
}

// await is eventually for those who have no test.
func await(limit time.Duration, try func() error) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(limit); ; <-again.C {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not so after %s: %w", limit, err)
		}
	}
}
