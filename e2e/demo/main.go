//go:build linux

// Command demo shows one kube-hop per node at work, without a cluster: it builds two nodes with pods and an outside
// client out of network namespaces, feeds each daemon from a folder of YAML, sends real requests and checks who
// answered them. Run it as root. It exits 1, with the daemons' last log lines, as soon as something is not as it
// must be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	cfg := config{}
	flag.StringVar(&cfg.binary, "kube-hop", "", "the kube-hop binary")
	flag.StringVar(&cfg.examples, "examples", "examples", "folder of the example YAML")
	flag.StringVar(&cfg.mode, "proxy-mode", "", "passed on to kube-hop unless empty")
	flag.IntVar(&cfg.requests, "requests", 30, "requests per client and frontend")
	flag.DurationVar(&cfg.wait, "request-timeout", 3*time.Second, "when a request counts as dropped")
	flag.DurationVar(&cfg.limit, "timeout", 3*time.Minute, "limit for the whole run")
	flag.BoolVar(&cfg.topologyOnly, "topology-only", false, "only build the nodes and see that they are connected")
	flag.Parse()
	if err := cfg.validate(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.limit, fmt.Errorf("not done after %s", cfg.limit))
	err := run(ctx, cfg, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: FAILED:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	binary, examples, mode string
	requests               int
	wait, limit            time.Duration
	topologyOnly           bool
}

func (c *config) validate() (err error) {
	if c.topologyOnly {
		return nil
	}
	if c.binary == "" {
		return errors.New("--kube-hop: which binary?")
	}
	// The daemons run elsewhere in spirit, but in this folder in fact.
	if c.binary, err = filepath.Abs(c.binary); err != nil {
		return err
	}
	if _, err := os.Stat(c.binary); err != nil {
		return fmt.Errorf("--kube-hop: %w", err)
	}
	if _, err := os.Stat(filepath.Join(c.examples, "web.yaml")); err != nil {
		return fmt.Errorf("--examples: %w", err)
	}
	return nil
}

// step is one part of the demo; its name is printed before it runs.
type step struct {
	name string
	do   func(context.Context) error
}

// run goes through the steps and stops at the first that fails.
func run(ctx context.Context, cfg config, out io.Writer) (err error) {
	d := &demo{config: cfg, out: out}
	defer func() { err = errors.Join(err, d.close()) }()
	steps := []step{
		{"build nodes n1 and n2, pods a1 a2 b1 b2 and an outside client", d.build},
		{"start kube-hop on both nodes", d.startDaemons},
		{"wait until both report healthy and the ClusterIP answers", d.awaitReady},
		{"ask every frontend from a pod, from the node and from outside", d.askAll},
		{"show what IPVS on n1 was told", d.showVirtualServers},
		{"replace endpoint b1 by b2 in the YAML of both nodes", d.replaceEndpoint},
		{"stop the daemons with SIGTERM; traffic must go on", d.stopDaemons},
		{"run `kube-hop cleanup` on both nodes; nothing may be left", d.cleanup},
	}
	if cfg.topologyOnly {
		steps = []step{steps[0], {"ask the pods directly", d.askPods}}
	}
	begin := time.Now()
	for i, s := range steps {
		fmt.Fprintf(out, "\n[%5.1fs] %d/%d %s\n", time.Since(begin).Seconds(), i+1, len(steps), s.name)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w%s", s.name, err, d.logTails())
		}
	}
	fmt.Fprintf(out, "\n[%5.1fs] all as expected\n", time.Since(begin).Seconds())
	return nil
}
