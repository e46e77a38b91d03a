package informers

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// NewClient returns a client for the API server, by kube-proxy's rules: with neither kubeconfig nor master the Pod's
// service account is used, otherwise the kubeconfig file (path) with master (URL) in place of its server.
//
// qps and burst limit requests per second; zero takes client-go's defaults (5 and 10), a negative qps lifts the
// limit. contentType is the wire format, empty for protobuf. Nothing is sent: a wrong address shows with the first
// request.
func NewClient(kubeconfig, master string, qps float32, burst int, contentType string) (kubernetes.Interface, error) {
	config, err := clientConfig(kubeconfig, master)
	if err != nil {
		return nil, err
	}
	if contentType == "" {
		contentType = runtime.ContentTypeProtobuf
	}
	config.ContentType = contentType
	config.AcceptContentTypes = contentType
	if !strings.Contains(contentType, runtime.ContentTypeJSON) {
		config.AcceptContentTypes += "," + runtime.ContentTypeJSON
	}
	config.QPS = qps
	config.Burst = burst
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("informers: API client for %s: %w", config.Host, err)
	}
	return client, nil
}

func clientConfig(kubeconfig, master string) (*rest.Config, error) {
	if kubeconfig == "" && master == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("informers: not in a Pod, so name the API server with --kubeconfig or --master: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("informers: service account of this Pod (automountServiceAccountToken must not be false), "+
				"or use --kubeconfig: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig},
		&clientcmd.ConfigOverrides{ClusterInfo: clientcmdapi.Cluster{Server: master}},
	).ClientConfig()
	if err == nil {
		return config, nil
	}
	if kubeconfig == "" {
		return nil, fmt.Errorf("informers: API server %q (check --master): %w", master, err)
	}
	return nil, fmt.Errorf("informers: kubeconfig %q (check --kubeconfig): %w", kubeconfig, err)
}
