//go:build e2e && linux

package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
)

const (
	namespace = "default"
	// endpoints is how many each Service has.
	endpoints = 10
	// rounds is how many addresses the last endpoint of a Service can have one after the other; the others stay.
	rounds = 64 - endpoints
	// workers is how many requests the API server gets at once.
	workers = 24

	servicePort = 80
	podPort     = 8080

	// storeVersion is part of the name of what is stored. It changes with the objects.
	storeVersion = "1"
)

// serviceCIDR has room for a million Services. endpointRange has room for all the addresses of a hundred thousand, below
// those of the pods that really exist.
var (
	serviceCIDR   = netip.MustParsePrefix("10.96.0.0/12")
	endpointRange = netip.MustParsePrefix("10.128.0.0/9")
)

func serviceRanges() []netip.Prefix { return []netip.Prefix{serviceCIDR} }

// nth returns an address of the range by its number.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr().As4()
	v := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// clusterIP of the i-th Service; the first addresses of the range are left to the kubernetes Service.
func clusterIP(i int) netip.Addr { return nth(serviceCIDR, 256+i) }

func serviceName(i int) string { return "s" + strconv.Itoa(i) }

// moving returns the last endpoint of the i-th Service in a round. No two are the same.
func moving(i, round int) netip.Addr {
	return nth(endpointRange, i*(endpoints+rounds)+endpoints+round%rounds)
}

func newService(name string, ip netip.Addr) *corev1.Service {
	svc := controlplane.NewService(namespace, name, corev1.ServiceTypeClusterIP, controlplane.TCP(servicePort, podPort))
	svc.Spec.IPFamilyPolicy = nil
	svc.Spec.ClusterIP = ip.String()
	return svc
}

// newSlice returns the slice of the i-th Service in a round; the first round is 0.
func newSlice(i, round int) *discoveryv1.EndpointSlice {
	node := "n" + strconv.Itoa(1+i%500)
	var list []controlplane.Endpoint
	for e := range endpoints - 1 {
		list = append(list, controlplane.ReadyEndpoint(nth(endpointRange, i*(endpoints+rounds)+e+1), node))
	}
	list = append(list, controlplane.ReadyEndpoint(moving(i, round), node))
	return controlplane.NewSlice(newService(serviceName(i), clusterIP(i)), corev1.IPv4Protocol, list...)
}

// create stores n Services with their slices.
func create(ctx context.Context, client kubernetes.Interface, n int) error {
	return parallel(ctx, n, func(ctx context.Context, i int) error {
		if _, err := client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, newSlice(i, 0), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create slice of %s: %w", serviceName(i), err)
		}
		svc := newService(serviceName(i), clusterIP(i))
		if _, err := client.CoreV1().Services(namespace).Create(ctx, svc, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create service %s: %w", svc.Name, err)
		}
		return nil
	})
}

// createMarker stores the Service whose endpoint answers. Its name sorts behind those of all others.
func createMarker(ctx context.Context, client kubernetes.Interface, pod netip.Addr) error {
	svc := newService("z", markerIP())
	if _, err := controlplane.ApplyService(ctx, client, svc); err != nil {
		return err
	}
	slice := controlplane.NewSlice(svc, corev1.IPv4Protocol, controlplane.ReadyEndpoint(pod, "n1"))
	_, err := controlplane.ApplySlice(ctx, client, slice)
	return err
}

func markerIP() netip.Addr { return nth(serviceCIDR, 200) }

// others is how many Services there are beside those of the load: kubernetes and the marker.
const others = 2

// change gives the i-th Service the last endpoint of a round.
func change(ctx context.Context, client kubernetes.Interface, i, round int) error {
	if _, err := client.DiscoveryV1().EndpointSlices(namespace).Update(ctx, newSlice(i, round), metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("change slice of %s: %w", serviceName(i), err)
	}
	return nil
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
