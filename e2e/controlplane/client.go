package controlplane

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// attemptTimeout bounds one look at an API server that is starting: it may accept a request and not answer it.
const attemptTimeout = 5 * time.Second

// kubernetesName is what the API server calls its own Service and EndpointSlice, and its default ServiceCIDR.
const kubernetesName = "kubernetes"

// WriteKubeconfig writes a kubeconfig with all rights to path, for clients that reach the API server at the
// address server: a node's namespace over veth, or a guest through its host.
func (c *ControlPlane) WriteKubeconfig(path string, server netip.Addr) error {
	const name = "test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   "https://" + netip.AddrPortFrom(server, c.opts.Port).String(),
		CertificateAuthorityData: c.creds.cert,
		// The certificate cannot know every address that a network in between may give the API server.
		TLSServerName: certName,
	}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: c.creds.token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// newClient returns a client that uses the kubeconfig and dials in the network namespace.
func newClient(kubeconfig, netns string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.QPS = -1 // no limit: tests create thousands of objects
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if netns != "" {
		config.Dial = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = inNetns(netns, func() error {
				dialled, err := new(net.Dialer).DialContext(ctx, network, address)
				conn = dialled
				return err
			})
			return conn, err
		}
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	return client, nil
}

// usable fails until the API server can create Services in the default namespace, and has created what it
// creates in the background: tests then see no object appear that they did not make. /readyz alone is too early.
func (c *ControlPlane) usable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("get /readyz: %w", err)
	}
	cidr, err := c.client.NetworkingV1().ServiceCIDRs().Get(ctx, kubernetesName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get default ServiceCIDR: %w", err)
	}
	if !meta.IsStatusConditionTrue(cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
		return fmt.Errorf("default ServiceCIDR is not ready: %v", cidr.Status.Conditions)
	}
	const namespace = metav1.NamespaceDefault
	if _, err := c.client.CoreV1().Services(namespace).Get(ctx, kubernetesName, metav1.GetOptions{}); err != nil {
		return fmt.Errorf("get kubernetes service: %w", err)
	}
	if !c.opts.published() {
		return nil
	}
	slices := c.client.DiscoveryV1().EndpointSlices(namespace)
	if _, err := slices.Get(ctx, kubernetesName, metav1.GetOptions{}); err != nil {
		return fmt.Errorf("get endpoint slice of kubernetes service: %w", err)
	}
	return nil
}

// freePort returns a TCP port that nothing listens on at addr. Something else may take it before the API server
// does; then the API server ends and says so.
func freePort(netns string, addr netip.Addr) (port uint16, err error) {
	err = inNetns(netns, func() error {
		l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			return fmt.Errorf("find a free port at %s: %w", addr, err)
		}
		defer l.Close()
		// Always so: it is the address of a TCP listener.
		if tcp, ok := l.Addr().(*net.TCPAddr); ok {
			port = tcp.AddrPort().Port()
		}
		return nil
	})
	return port, err
}
