// Command kube-hop programs IPVS and iptables on one Kubernetes node so that traffic to Services reaches their Pods.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	klog.Flush()
	os.Exit(exitCode(err))
}

// usageError is a mistake in flags or arguments, as opposed to something that went wrong at run time.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode prints an error and returns the process's exit code: 0, 1 for a failure, 2 for wrong usage.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "kube-hop:", err)
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}
