//go:build e2e && linux

package apitest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
)

const (
	// podPort is where the pods' echo servers listen.
	podPort = 8080
	// namespace is where the tests' Services are.
	namespace = "default"
	// deadline is how long a condition may take to come true. Far more than it does: it only ends a test that hangs.
	deadline = 5 * time.Minute

	healthURL  = "http://127.0.0.1:10256"
	metricsURL = "http://127.0.0.1:10249/metrics"
)

// serviceCIDRs are ranges that the bed's outside clients have a route for.
var serviceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/112")}

// cluster is what the tests share.
type cluster struct {
	bed        *testbed.Bed
	cp         *controlplane.ControlPlane
	client     kubernetes.Interface
	dir        string
	kubeconfig string // of the daemons
	daemons    map[*testbed.Host]*testbed.Proc
	tables     map[*testbed.Host]*ipvsnl.Table // the tests' own look at each node's kernel
}

// TestAPI starts the cluster and runs every test on it, one after the other.
func TestAPI(t *testing.T) {
	begin := time.Now()
	c := newCluster(t)
	t.Logf("the cluster is up after %s", time.Since(begin).Round(time.Second))
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"Rights", testRights},
		{"ServiceCIDR", testServiceCIDR},
		{"Lifecycle", testLifecycle},
		{"ProxyNameLabel", testProxyNameLabel},
		{"HeadlessSlice", testHeadlessSlice},
		{"Events", testEvents},
		{"NodeLabels", testNodeLabels},
		{"Outage", testOutage}, // last: it leaves a new API server behind
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, c)
			if t.Failed() {
				c.logTails(t)
			}
		})
	}
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("CONTROLPLANE_BIN") == "" || os.Getenv("KUBE_HOP") == "" {
		skip(t, "needs root, CONTROLPLANE_BIN and KUBE_HOP")
	}
	c := &cluster{
		dir:     t.TempDir(),
		daemons: map[*testbed.Host]*testbed.Proc{},
		tables:  map[*testbed.Host]*ipvsnl.Table{},
	}
	var err error
	if c.bed, err = testbed.New(t.Context(), testbed.Options{Timeout: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.bed.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, pod := range []*testbed.Host{c.bed.A1, c.bed.A2, c.bed.B1, c.bed.B2} {
		if _, err := pod.Serve(t.Context(), testbed.TCP, podPort); err != nil {
			t.Fatal(err)
		}
	}
	c.startControlPlane(t)
	for _, n := range c.bed.Nodes() {
		c.openTable(t, n)
		c.startDaemon(t, n)
	}
	for _, n := range c.bed.Nodes() {
		c.until(t, "healthz of "+n.Name, func() error { return get200(t.Context(), n, healthURL+"/healthz") })
	}
	return c
}

// skip says why nothing is tested; where the means must be there, that is a failure.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		t.Fatal("REQUIRE_KERNEL=1: ", reason)
	}
	t.Skip(reason)
}

// startControlPlane starts the API server on a host of the wire, and stores the Nodes and the rights.
func (c *cluster) startControlPlane(t *testing.T) {
	t.Helper()
	host, err := c.bed.AddOutside(t.Context(), "cp")
	if err != nil {
		t.Fatal(err)
	}
	c.cp, err = controlplane.Start(t.Context(), controlplane.Options{
		Dir: filepath.Join(c.dir, "cp"), BinDir: os.Getenv("CONTROLPLANE_BIN"),
		Netns: host.NetnsName, ListenAddr: host.Addr4, ServiceCIDRs: serviceCIDRs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.cp.Close)
	c.client = c.cp.Client()
	for _, n := range c.bed.Nodes() {
		node := controlplane.NewNode(n.Name, n.Addr4, n.Addr6)
		if _, err := controlplane.ApplyNode(t.Context(), c.client, node); err != nil {
			t.Fatal(err)
		}
	}
	c.grantRights(t)
	c.writeKubeconfig(t)
}

// writeKubeconfig writes the daemons' kubeconfig: the test's own token, but acting as a user with few rights.
func (c *cluster) writeKubeconfig(t *testing.T) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.cp.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.Impersonate = daemonUser
	}
	c.kubeconfig = filepath.Join(c.dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, c.kubeconfig); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) openTable(t *testing.T, n *testbed.Host) {
	t.Helper()
	if err := n.Do(func() (err error) {
		c.tables[n], err = ipvsnl.Open(ipvsnl.Options{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.tables[n].Close)
}

// startDaemon starts kube-hop on the node. It lives as long as the bed, not as the test that starts it.
func (c *cluster) startDaemon(t *testing.T, n *testbed.Host) {
	t.Helper()
	args := []string{
		"run", "--kubeconfig", c.kubeconfig, "--hostname-override", n.Name,
		"--cluster-cidr", "10.244.0.0/16,fd24::/48", "-v", "2",
		"--metrics-bind-address", "127.0.0.1:10249", "--healthz-bind-address", "0.0.0.0:10256",
	}
	log := filepath.Join(c.dir, n.Name+".log")
	p, err := n.Start(context.WithoutCancel(t.Context()), os.Getenv("KUBE_HOP"), args, log)
	if err != nil {
		t.Fatal(err)
	}
	c.daemons[n] = p
}

// logTails shows what the daemons said last.
func (c *cluster) logTails(t *testing.T) {
	t.Helper()
	for n, p := range c.daemons {
		t.Logf("last log lines of kube-hop on %s:\n%s", n, p.Tail(30))
	}
}

// until tries again and again until try succeeds. It fails the test when time is up or a daemon has ended.
func (c *cluster) until(t *testing.T, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		for n, p := range c.daemons {
			select {
			case <-p.Done():
				t.Fatalf("%s: kube-hop on %s has ended; last: %v\n%s", what, n, err, p.Tail(30))
			default:
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			c.logTails(t)
			t.Fatalf("%s: %v; last: %v", what, context.Cause(ctx), err)
		}
	}
}

// get200 succeeds if the URL answers 200, as seen from h.
func get200(ctx context.Context, h *testbed.Host, url string) error {
	status, err := getStatus(ctx, h, url)
	if err == nil && status != 200 {
		err = fmt.Errorf("GET %s: status %d", url, status)
	}
	return err
}
