// Package controlplane runs a Kubernetes API server for the end-to-end tests: etcd and kube-apiserver as child
// processes, from the binaries that hack/build-apiserver makes. There are no controllers and no kubelets, so
// tests write EndpointSlices and Nodes themselves, with the functions of object.go.
//
//	cp, err := controlplane.Start(ctx, controlplane.Options{Dir: t.TempDir(), BinDir: bin})
//	...
//	defer cp.Close()
//	svc := controlplane.NewService("default", "web", corev1.ServiceTypeClusterIP, controlplane.TCP(80, 8080))
//	svc, err = controlplane.ApplyService(ctx, cp.Client(), svc)
//
// The processes end with Close, with the context, or with the process that started them, whichever is first.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
)

// File names in Options.Dir. The processes run in that folder and are given relative names: the path of
// a test's temporary folder can be longer than the 107 bytes that a Unix socket address holds.
const (
	etcdSocket     = "etcd.sock"
	etcdPeerSocket = "etcd-peer.sock"
	kubeconfigFile = "kubeconfig"
	etcdData       = "etcd"
)

const (
	// readyTimeout is how long one start may take: 3 s are usual, and 30 s on an emulated CPU with company.
	readyTimeout = 10 * time.Minute
	// readyInterval is the time between two looks at a process that is starting.
	readyInterval = 50 * time.Millisecond
)

// ControlPlane is one etcd with one API server. Its methods are not safe for concurrent use; the client is.
type ControlPlane struct {
	opts      Options
	creds     credentials
	client    kubernetes.Interface
	etcd      *process
	apiserver *process // nil while it is stopped
}

// Start starts etcd and the API server, and returns when Services can be created. The processes live as long
// as ctx. The error of a process that did not come up holds the end of its log.
func Start(ctx context.Context, opts Options) (*ControlPlane, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	creds, err := newCredentials(opts.certAddrs())
	if err != nil {
		return nil, err
	}
	if err := creds.write(opts.Dir); err != nil {
		return nil, err
	}
	c := &ControlPlane{opts: opts, creds: creds}
	if err := c.WriteKubeconfig(c.Kubeconfig(), opts.serverAddr()); err != nil {
		return nil, err
	}
	if c.client, err = newClient(c.Kubeconfig(), opts.Netns); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context) error {
	if err := setLoopbackUp(c.opts.Netns); err != nil {
		return err
	}
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	return c.StartAPIServer(ctx)
}

// Client returns a client without a rate limit, with all rights. It dials from the API server's namespace.
func (c *ControlPlane) Client() kubernetes.Interface { return c.client }

// Kubeconfig returns the path of a kubeconfig for the address that the API server listens on, with all rights.
func (c *ControlPlane) Kubeconfig() string { return filepath.Join(c.opts.Dir, kubeconfigFile) }

// Data returns the folder with what is stored, for [Options].Data of a later control plane. It may be copied once Close
// has returned.
func (c *ControlPlane) Data() string { return filepath.Join(c.opts.Dir, etcdData) }

// Close ends the API server and etcd and returns when both are gone. Closing twice is harmless.
func (c *ControlPlane) Close() {
	c.StopAPIServer()
	if c.etcd != nil {
		c.etcd.kill()
		c.etcd = nil
	}
}

// StopAPIServer kills the API server and returns when it is gone; what it stored stays in etcd. To its clients
// this is a crash: their connections break at once. Stopping twice is harmless.
func (c *ControlPlane) StopAPIServer() {
	if c.apiserver != nil {
		c.apiserver.kill()
		c.apiserver = nil
	}
}

// StartAPIServer starts the API server again, under the same address and with the same certificate and tokens,
// and returns when Services can be created. It then lives as long as ctx.
func (c *ControlPlane) StartAPIServer(ctx context.Context) error {
	if c.apiserver != nil {
		return errors.New("start kube-apiserver: it was not stopped")
	}
	p, err := startProcess(ctx, c.opts.command("kube-apiserver", c.opts.apiserverArgs()))
	if err != nil {
		return err
	}
	c.apiserver = p
	return c.wait(ctx, p, c.usable)
}

// Pause halts all processes, so that they take no time from what is measured, and returns what lets them go on. Watches
// stay open.
func (c *ControlPlane) Pause() (goOn func() error, err error) {
	signal := func(s os.Signal) error {
		var errs []error
		for _, p := range []*process{c.etcd, c.apiserver} {
			if p != nil {
				errs = append(errs, p.exec.Process.Signal(s))
			}
		}
		return errors.Join(errs...)
	}
	goOn = func() error { return signal(syscall.SIGCONT) }
	if err := signal(syscall.SIGSTOP); err != nil {
		return nil, errors.Join(fmt.Errorf("pause the API server: %w", err), goOn())
	}
	return goOn, nil
}

func (c *ControlPlane) startEtcd(ctx context.Context) error {
	socket := filepath.Join(c.opts.Dir, etcdSocket)
	// A socket that an earlier run left behind would pass for the one of the new process.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old etcd socket: %w", err)
	}
	p, err := startProcess(ctx, c.opts.command("etcd", etcdArgs()))
	if err != nil {
		return err
	}
	c.etcd = p
	return c.wait(ctx, p, func(context.Context) error {
		if _, err := os.Stat(socket); err != nil {
			return fmt.Errorf("stat etcd socket: %w", err)
		}
		return nil
	})
}

// wait returns when ready does not fail any more, or an error if p or etcd ends before, or time is up.
func (c *ControlPlane) wait(ctx context.Context, p *process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.ended()
		case <-c.etcd.done:
			return c.etcd.ended()
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last state: %w%s", p.cmd.name, ctx.Err(), err, p.tail())
		case <-tick.C:
		}
	}
}
