//go:build e2e && linux

package scale

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
)

const (
	namespace = "default"
	// endpoints is how many each Service has.
	endpoints = 10
	// workers is how many requests the API server gets at once.
	workers = 24

	servicePort = 80
	podPort     = 8080
)

// serviceCIDR has room for a million Services, endpointRange for eight million endpoints.
var (
	serviceCIDR   = netip.MustParsePrefix("10.96.0.0/12")
	endpointRange = netip.MustParsePrefix("10.128.0.0/9")
)

// cluster is a node and an API server.
type cluster struct {
	dir        string
	bed        *testbed.Bed
	node       *testbed.Host
	client     kubernetes.Interface
	kubeconfig string
	table      *ipvsnl.Table
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	bin := os.Getenv("CONTROLPLANE_BIN")
	if os.Geteuid() != 0 || bin == "" || os.Getenv("KUBE_HOP") == "" {
		const reason = "needs root, CONTROLPLANE_BIN and KUBE_HOP"
		if os.Getenv("REQUIRE_KERNEL") == "1" {
			t.Fatal("REQUIRE_KERNEL=1: ", reason)
		}
		t.Skip(reason)
	}
	bed, err := testbed.New(t.Context(), testbed.Options{
		Nodes: []testbed.NodeSpec{{Name: "n1", Pods: []string{"a1"}}}, Outside: []string{"cp"}, Timeout: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{dir: t.TempDir(), bed: bed, node: bed.N1}
	host := bed.Host("cp")
	cp, err := controlplane.Start(t.Context(), controlplane.Options{
		Dir: filepath.Join(c.dir, "cp"), BinDir: bin,
		Netns: host.NetnsName, ListenAddr: host.Addr4, ServiceCIDRs: []netip.Prefix{serviceCIDR},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Close)
	c.client, c.kubeconfig = cp.Client(), cp.Kubeconfig()
	node := controlplane.NewNode(c.node.Name, c.node.Addr4, c.node.Addr6)
	if _, err := controlplane.ApplyNode(t.Context(), c.client, node); err != nil {
		t.Fatal(err)
	}
	if err := c.node.Do(func() (err error) {
		c.table, err = ipvsnl.Open(ipvsnl.Options{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.table.Close)
	return c
}

// nth returns an address of the range by its number.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr().As4()
	v := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// clusterIP of the i-th Service; the first addresses of the range are left to the kubernetes Service.
func clusterIP(i int) netip.Addr { return nth(serviceCIDR, 256+i) }

func name(i int) string { return "s" + strconv.Itoa(i) }

func newService(i int) *corev1.Service {
	svc := controlplane.NewService(namespace, name(i), corev1.ServiceTypeClusterIP, controlplane.TCP(servicePort, podPort))
	svc.Spec.IPFamilyPolicy = nil
	svc.Spec.ClusterIP = clusterIP(i).String()
	return svc
}

// newSlice returns a slice with n endpoints of the i-th Service.
func (c *cluster) newSlice(i, n int) *discoveryv1.EndpointSlice {
	var list []controlplane.Endpoint
	for _, a := range c.addrs(i, n) {
		list = append(list, controlplane.ReadyEndpoint(a, "n"+strconv.Itoa(1+i%500)))
	}
	return controlplane.NewSlice(newService(i), corev1.IPv4Protocol, list...)
}

func (c *cluster) addrs(i, n int) []netip.Addr {
	var out []netip.Addr
	for e := range n {
		out = append(out, nth(endpointRange, i*(endpoints+1)+e+1))
	}
	return out
}

// create stores n Services with their slices.
func (c *cluster) create(ctx context.Context, n int) error {
	return parallel(ctx, n, func(ctx context.Context, i int) error {
		if _, err := c.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, c.newSlice(i, endpoints), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create slice of %s: %w", name(i), err)
		}
		if _, err := c.client.CoreV1().Services(namespace).Create(ctx, newService(i), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create service %s: %w", name(i), err)
		}
		return nil
	})
}

// remove deletes the Services from first up to end, with their slices.
func (c *cluster) remove(ctx context.Context, first, end int) error {
	return parallel(ctx, end-first, func(ctx context.Context, i int) error {
		i += first
		if err := controlplane.DeleteService(ctx, c.client, namespace, name(i)); err != nil {
			return err
		}
		return controlplane.DeleteSlice(ctx, c.client, namespace, c.newSlice(i, 0).Name)
	})
}

// parallel calls do for 0 to n-1.
func parallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// check reads the kernel once and compares everything: the Services from first up to end with n endpoints each (the
// first one with extra more), the kubernetes Service, and nothing else; and the one route for the range.
func (c *cluster) check(t *testing.T, first, end, extra int) (reals int) {
	t.Helper()
	state, err := c.table.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(state.Virtual), end-first+1; got != want {
		t.Errorf("%d virtual servers, want %d", got, want)
	}
	if _, ok := state.Bound[serviceCIDR]; !ok || len(state.Bound) != 1 {
		t.Errorf("bound: %v, want only %s", state.Bound, serviceCIDR)
	}
	var wrong []string
	for i := first; i < end; i++ {
		n := endpoints
		if i == first {
			n += extra
		}
		k := ipvs.Key{Addr: clusterIP(i), Port: servicePort, Proto: ipvs.TCP}
		v := state.Virtual[k]
		reals += len(v.Real)
		if !equal(v.Real, c.addrs(i, n)) {
			wrong = append(wrong, fmt.Sprintf("%s: %v", k, v.Real))
		}
	}
	if len(wrong) > 0 {
		t.Errorf("%d virtual servers are wrong, such as %s", len(wrong), strings.Join(wrong[:min(3, len(wrong))], "; "))
	}
	return reals
}

// equal compares real servers with the endpoints' addresses; both are sorted.
func equal(reals []ipvs.RealServer, addrs []netip.Addr) bool {
	if len(reals) != len(addrs) {
		return false
	}
	for i, r := range reals {
		if (r != ipvs.RealServer{Dest: ipvs.Dest{Addr: addrs[i], Port: podPort}, Weight: 1}) {
			return false
		}
	}
	return true
}
