//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// podPort is where the endpoints of examples/web.yaml listen.
const podPort = 8080

// demo is the state that steps hand on.
type demo struct {
	config

	out     io.Writer
	bed     *testbed.Bed
	dir     string // a folder of YAML per node, named after it, and the logs
	daemons map[*testbed.Host]*testbed.Proc
}

// close takes the bed down, with whatever still runs in it.
func (d *demo) close() (err error) {
	if d.bed != nil {
		err = d.bed.Close()
	}
	if d.dir != "" {
		err = errors.Join(err, os.RemoveAll(d.dir))
	}
	return err
}

func (d *demo) build(ctx context.Context) (err error) {
	if d.bed, err = testbed.New(ctx, testbed.Options{Timeout: d.wait}); err != nil {
		return err
	}
	for _, pod := range []*testbed.Host{d.bed.A1, d.bed.A2, d.bed.B1, d.bed.B2} {
		if _, err := pod.Serve(ctx, testbed.TCP, podPort); err != nil {
			return err
		}
	}
	for _, h := range []*testbed.Host{d.bed.N1, d.bed.N2, d.bed.A1, d.bed.A2, d.bed.B1, d.bed.B2, d.bed.Out} {
		fmt.Fprintf(d.out, "  %-4s %-15s %-16s ip netns exec %s\n", h.Name, h.Addr4, h.Addr6, h.NetnsName)
	}
	return nil
}

// askPods shows that the network carries packets before any Service exists.
func (d *demo) askPods(ctx context.Context) error {
	pods := []*testbed.Host{d.bed.A1, d.bed.A2, d.bed.B1, d.bed.B2}
	for _, from := range append(pods, d.bed.N1, d.bed.N2) {
		for _, to := range pods {
			for _, addr := range []netip.Addr{to.Addr4, to.Addr6} {
				a, err := from.Ask(ctx, testbed.TCP, netip.AddrPortFrom(addr, podPort))
				if err != nil {
					return err
				}
				fmt.Fprintf(d.out, "  %-3s -> %-16s %s saw %-16s %s\n", from, addr, a.Pod, a.Peer.Addr(), a.Took)
			}
		}
	}
	return nil
}

// startDaemons gives each node its own copy of the examples and a daemon that reads it.
func (d *demo) startDaemons(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "kube-hop-demo-"); err != nil {
		return err
	}
	d.daemons = map[*testbed.Host]*testbed.Proc{}
	for _, n := range d.bed.Nodes() {
		if err := os.CopyFS(d.folder(n), os.DirFS(d.examples)); err != nil {
			return err
		}
		args := []string{
			"run", "--from", d.folder(n), "--hostname-override", n.Name,
			"--cluster-cidr", "10.244.0.0/16,fd24::/48",
			"--metrics-bind-address", "127.0.0.1:10249", "--healthz-bind-address", "0.0.0.0:10256", "-v", "1",
		}
		if d.mode != "" {
			args = append(args, "--proxy-mode", d.mode)
		}
		p, err := n.Start(ctx, d.binary, args, filepath.Join(d.dir, n.Name+".log"))
		if err != nil {
			return err
		}
		d.daemons[n] = p
		fmt.Fprintf(d.out, "  %s: pid %d\n", n, p.Pid())
	}
	return nil
}

func (d *demo) folder(n *testbed.Host) string { return filepath.Join(d.dir, n.Name) }

// awaitReady waits for what a user would wait for: the health port, then an answer.
func (d *demo) awaitReady(ctx context.Context) error {
	begin := time.Now()
	for _, n := range d.bed.Nodes() {
		if err := d.until(ctx, n, func() error { return get200(ctx, n, "http://127.0.0.1:10256/healthz") }); err != nil {
			return fmt.Errorf("healthz of %s: %w", n, err)
		}
		fmt.Fprintf(d.out, "  %s: healthy %s after the start\n", n, time.Since(begin).Round(time.Millisecond))
	}
	for _, pod := range []*testbed.Host{d.bed.A1, d.bed.B1} {
		for _, service := range clusterIPs {
			err := d.until(ctx, pod.Node, func() error {
				_, err := pod.Ask(ctx, testbed.TCP, service, testbed.Timeout(500*time.Millisecond))
				return err
			})
			if err != nil {
				return fmt.Errorf("first request: %w", err)
			}
		}
	}
	fmt.Fprintf(d.out, "  ClusterIP answers on both nodes %s after the start\n", time.Since(begin).Round(time.Millisecond))
	return nil
}

// until tries until it succeeds, for two minutes at most, or the node's daemon ends.
func (d *demo) until(ctx context.Context, n *testbed.Host, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		last := try()
		if last == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-d.daemons[n].Done():
			return fmt.Errorf("kube-hop on %s ended by itself: %w; last: %w", n, d.daemons[n].Wait(ctx), last)
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), last)
		}
	}
}

// get200 succeeds if the URL, as seen from h, answers 200.
func get200(ctx context.Context, h *testbed.Host, url string) error {
	_, err := fetch(ctx, h, url)
	return err
}

// fetch returns the body behind the URL, as seen from h; any status but 200 is an error.
func fetch(ctx context.Context, h *testbed.Host, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := h.HTTP().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s on %s: %s: %.200s", url, h, resp.Status, body)
	}
	return string(body), err
}

// stopDaemons ends both daemons; what they programmed stays, as it must while one is upgraded.
func (d *demo) stopDaemons(ctx context.Context) error {
	for _, n := range d.bed.Nodes() {
		begin := time.Now()
		wait, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := d.daemons[n].Stop(wait, syscall.SIGTERM)
		cancel()
		if err != nil {
			return fmt.Errorf("SIGTERM to kube-hop on %s: %w", n, err)
		}
		fmt.Fprintf(d.out, "  %s: ended with status 0 after %s\n", n, time.Since(begin).Round(time.Millisecond))
	}
	return d.askTable(ctx, min(d.requests, 6), "a1", "a2", "b2")
}

// logTails returns the last lines of the daemons' logs, for the report of a failure.
func (d *demo) logTails() string {
	var b strings.Builder
	if d.bed == nil {
		return ""
	}
	for _, n := range d.bed.Nodes() {
		if p := d.daemons[n]; p != nil {
			fmt.Fprintf(&b, "\n--- last log lines of kube-hop on %s ---\n%s", n, p.Tail(25))
		}
	}
	return b.String()
}
