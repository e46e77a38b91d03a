//go:build e2e

package controlplane_test

import (
	"bytes"
	"context"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
)

func TestObjectsSurviveAPIServerRestart(t *testing.T) {
	ctx := t.Context()
	cp := start(t, controlplane.Options{})
	svc := createDualStack(ctx, t, cp.Client())

	cp.StopAPIServer()
	if _, err := cp.Client().Discovery().ServerVersion(); err == nil {
		t.Fatal("the API server still answers after it was stopped")
	}
	if err := cp.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}

	services, err := cp.Client().CoreV1().Services("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, got := range services.Items {
		found = found || got.UID == svc.UID && got.ResourceVersion == svc.ResourceVersion
	}
	if !found {
		t.Errorf("service %s is not listed as it was after the restart: %v", svc.Name, services.Items)
	}
	slices, err := cp.Client().DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + svc.Name,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(slices.Items) != 2 || len(slices.Items[0].Endpoints) != 2 {
		t.Errorf("got slices %v, want one of each family with 2 endpoints", slices.Items)
	}
}

func TestDataBeginsALaterControlPlane(t *testing.T) {
	ctx := t.Context()
	earlier := start(t, controlplane.Options{})
	svc := createDualStack(ctx, t, earlier.Client())
	earlier.Close()
	later := start(t, controlplane.Options{Data: earlier.Data()})
	got, err := later.Client().CoreV1().Services("default").Get(ctx, svc.Name, metav1.GetOptions{})
	if err != nil || got.UID != svc.UID {
		t.Errorf("service %s in the later control plane: %v, %v", svc.Name, got, err)
	}
	if err := controlplane.DeleteService(ctx, later.Client(), "default", svc.Name); err != nil {
		t.Error(err)
	}
	later.Close()
	again := start(t, controlplane.Options{Data: earlier.Data()})
	if _, err := again.Client().CoreV1().Services("default").Get(ctx, svc.Name, metav1.GetOptions{}); err != nil {
		t.Errorf("what a later control plane deleted is gone for all: %v", err)
	}
}

func TestApplyIsRepeatable(t *testing.T) {
	ctx := t.Context()
	client := start(t, controlplane.Options{}).Client()

	svc := controlplane.NewService("default", "lb", corev1.ServiceTypeLoadBalancer, controlplane.UDP(53, 5353))
	created := must(controlplane.ApplyService(ctx, client, svc))(t)
	err := controlplane.SetLoadBalancerIPs(ctx, client, "default", "lb", netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	updated := must(controlplane.ApplyService(ctx, client, svc))(t)
	if updated.UID != created.UID || updated.Spec.ClusterIP != created.Spec.ClusterIP ||
		updated.Spec.Ports[0].NodePort != created.Spec.Ports[0].NodePort {
		t.Errorf("update did not keep what was allocated: %v, then %v", created.Spec, updated.Spec)
	}
	if updated.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal ||
		updated.Status.LoadBalancer.Ingress[0].IP != "192.0.2.1" {
		t.Errorf("update did not reach the API server: %v", updated)
	}
	// What the API server returned may be changed and applied too, although it holds its own addresses.
	updated.Labels = map[string]string{"a": "b"}
	must(controlplane.ApplyService(ctx, client, updated))(t)

	node := controlplane.NewNode("a", netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7"))
	if got := must(controlplane.ApplyNode(ctx, client, node))(t); len(got.Status.Addresses) != 2 {
		t.Errorf("got node addresses %v, want 2", got.Status.Addresses)
	}
	for range 2 { // deleting the absent succeeds
		if err := controlplane.DeleteService(ctx, client, "default", "lb"); err != nil {
			t.Error(err)
		}
		if err := controlplane.DeleteNode(ctx, client, "a"); err != nil {
			t.Error(err)
		}
	}
}

func TestStartErrorQuotesLog(t *testing.T) {
	_, err := controlplane.Start(t.Context(), controlplane.Options{
		Dir:          t.TempDir(),
		BinDir:       build(t),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.96.0.0/16")},
	})
	if err == nil || !strings.Contains(err.Error(), "must be of different IP family") {
		t.Errorf("got error %v, want the API server's own words", err)
	}
}

// start starts a control plane that ends with the test.
func start(t *testing.T, opts controlplane.Options) *controlplane.ControlPlane {
	t.Helper()
	opts.Dir, opts.BinDir = t.TempDir(), build(t)
	cp, err := controlplane.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Close)
	return cp
}

// build returns the folder of the binaries. It takes minutes the first time on a machine.
func build(t *testing.T) string {
	t.Helper()
	script := filepath.Join("..", "..", "hack", "build-apiserver")
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), script)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// createDualStack creates a Service with addresses of both families and a slice for each.
func createDualStack(ctx context.Context, t *testing.T, client kubernetes.Interface) *corev1.Service {
	t.Helper()
	svc := controlplane.NewService("default", "web", corev1.ServiceTypeNodePort, controlplane.TCP(80, 8080))
	svc = must(controlplane.ApplyService(ctx, client, svc))(t)
	if len(svc.Spec.ClusterIPs) != 2 || svc.Spec.Ports[0].NodePort == 0 {
		t.Errorf("got %v, want two cluster addresses and a node port", svc.Spec)
	}
	must(controlplane.ApplySlice(ctx, client, controlplane.NewSlice(svc, corev1.IPv4Protocol,
		controlplane.ReadyEndpoint(netip.MustParseAddr("10.244.1.5"), "a"),
		controlplane.TerminatingEndpoint(netip.MustParseAddr("10.244.2.5"), "b"))))(t)
	must(controlplane.ApplySlice(ctx, client, controlplane.NewSlice(svc, corev1.IPv6Protocol,
		controlplane.ReadyEndpoint(netip.MustParseAddr("2001:db8:1::5"), "a"),
		controlplane.TerminatingEndpoint(netip.MustParseAddr("2001:db8:2::5"), ""))))(t)
	return svc
}

func must[T any](got T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
}
