package controlplane

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
)

// ApplyService creates the Service, or makes an existing one like it. What the API server allocated, such as
// cluster addresses and node ports, stays where svc leaves it open. It returns the stored object.
func ApplyService(ctx context.Context, client kubernetes.Interface, svc *corev1.Service) (*corev1.Service, error) {
	return apply(ctx, client.CoreV1().Services(svc.Namespace), svc)
}

// ApplySlice creates the EndpointSlice, or makes an existing one like it. It returns the stored object.
func ApplySlice(
	ctx context.Context, client kubernetes.Interface, slice *discoveryv1.EndpointSlice,
) (*discoveryv1.EndpointSlice, error) {
	return apply(ctx, client.DiscoveryV1().EndpointSlices(slice.Namespace), slice)
}

// ApplyNode creates the Node with its addresses. Of an existing one it changes all but the status, and so
// not the addresses. It returns the stored object.
func ApplyNode(ctx context.Context, client kubernetes.Interface, node *corev1.Node) (*corev1.Node, error) {
	return apply(ctx, client.CoreV1().Nodes(), node)
}

// SetLoadBalancerIPs publishes the addresses as the Service's load balancer, in place of a cloud's controller.
func SetLoadBalancerIPs(
	ctx context.Context, client kubernetes.Interface, namespace, name string, addrs ...netip.Addr,
) error {
	services := client.CoreV1().Services(namespace)
	var ingress []corev1.LoadBalancerIngress
	for _, addr := range addrs {
		ingress = append(ingress, corev1.LoadBalancerIngress{IP: addr.String()})
	}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		svc, err := services.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		svc.Status.LoadBalancer.Ingress = ingress
		_, err = services.UpdateStatus(ctx, svc, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("set load balancer of service %s/%s: %w", namespace, name, err)
	}
	return nil
}

// DeleteService deletes the Service. Deleting the absent succeeds.
func DeleteService(ctx context.Context, client kubernetes.Interface, namespace, name string) error {
	return remove(ctx, client.CoreV1().Services(namespace), "service "+namespace+"/"+name, name)
}

// DeleteSlice deletes the EndpointSlice. Deleting the absent succeeds.
func DeleteSlice(ctx context.Context, client kubernetes.Interface, namespace, name string) error {
	return remove(ctx, client.DiscoveryV1().EndpointSlices(namespace), "endpoint slice "+namespace+"/"+name, name)
}

// DeleteNode deletes the Node. Deleting the absent succeeds.
func DeleteNode(ctx context.Context, client kubernetes.Interface, name string) error {
	return remove(ctx, client.CoreV1().Nodes(), "node "+name, name)
}

// object is a pointer to an API type.
type object[T any] interface {
	metav1.Object
	DeepCopy() T
}

// writer and deleter are the parts of a typed client that apply and remove need.
type writer[T any] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (T, error)
	Create(ctx context.Context, object T, opts metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, opts metav1.UpdateOptions) (T, error)
}

type deleter interface {
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// apply looks before it creates: creating a Service that exists may fail because its own address is taken,
// which does not look like a Service that exists.
func apply[T object[T]](ctx context.Context, w writer[T], want T) (got T, err error) {
	want = want.DeepCopy()
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := w.Get(ctx, want.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			want.SetResourceVersion("")
			got, err = w.Create(ctx, want, metav1.CreateOptions{})
		case err == nil:
			want.SetResourceVersion(current.GetResourceVersion())
			got, err = w.Update(ctx, want, metav1.UpdateOptions{})
		}
		return err
	})
	if err != nil {
		return got, fmt.Errorf("apply %T %s/%s: %w", want, want.GetNamespace(), want.GetName(), err)
	}
	return got, nil
}

func remove(ctx context.Context, d deleter, what, name string) error {
	if err := d.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", what, err)
	}
	return nil
}
