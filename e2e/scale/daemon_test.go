//go:build e2e && linux

package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

const (
	metricsAddr = "127.0.0.1:10249"
	metricsURL  = "http://" + metricsAddr + "/metrics"
	// deadline only ends a run that hangs.
	deadline = 20 * time.Minute
)

// daemon is one run of kube-hop.
type daemon struct {
	*testbed.Proc

	c     *cluster
	begin time.Time
}

func (c *cluster) startDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{c: c, begin: time.Now()}
	args := []string{
		"run", "--kubeconfig", c.kubeconfig, "--hostname-override", c.node.Name, "--cluster-cidr", "10.128.0.0/9",
		"--metrics-bind-address", metricsAddr, "--profiling", "-v", "2",
	}
	var err error
	d.Proc, err = c.node.Start(t.Context(), os.Getenv("KUBE_HOP"), args, filepath.Join(c.dir, "kube-hop.log"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// until polls until try succeeds, and returns how long that took since begin.
func (d *daemon) until(t *testing.T, begin time.Time, every time.Duration, try func() error) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return time.Since(begin)
		}
		select {
		case <-again.C:
		case <-d.Done():
			t.Fatalf("kube-hop has ended; last: %v\n%s", err, d.Tail(30))
		case <-ctx.Done():
			t.Fatalf("%v; last: %v\n%s", context.Cause(ctx), err, d.Tail(30))
		}
	}
}

// untilServes waits until the daemon says that all Services are in the kernel, and returns the time since its start.
func (d *daemon) untilServes(t *testing.T, services int) time.Duration {
	t.Helper()
	return d.until(t, d.begin, 250*time.Millisecond, func() error {
		m, err := d.c.node.Metrics(t.Context(), metricsURL)
		switch {
		case err != nil:
			return err
		case m["kubeproxy_sync_proxy_rules_last_timestamp_seconds"] == 0:
			return errors.New("no successful sync yet")
		case int(m["kubehop_services"]) != services:
			return fmt.Errorf("%v services, want %d", m["kubehop_services"], services)
		}
		return nil
	})
}

// operations returns how many kernel operations the daemon has tried since its start.
func (d *daemon) operations(t *testing.T) int {
	t.Helper()
	m, err := d.c.node.Metrics(t.Context(), metricsURL)
	if err != nil {
		t.Fatal(err)
	}
	if failing := m["kubehop_failing_objects"]; failing != 0 {
		t.Errorf("%v objects are failing", failing)
	}
	return int(m["kubehop_kernel_operations_total"])
}

// syncSeconds returns how long all syncs so far took.
func (d *daemon) syncSeconds(t *testing.T) (seconds float64, count int) {
	t.Helper()
	m, err := d.c.node.Metrics(t.Context(), metricsURL)
	if err != nil {
		t.Fatal(err)
	}
	// One observation for each of the two families.
	const name = "kubeproxy_sync_proxy_rules_duration_seconds"
	return m[name+"_sum"] / 2, int(m[name+"_count"]) / 2
}

// memory returns how much memory is resident and the most that was so far, in MiB.
func (d *daemon) memory(t *testing.T) (resident, peak float64) {
	t.Helper()
	r, p, err := d.Memory()
	if err != nil {
		t.Fatal(err)
	}
	return float64(r) / (1 << 20), float64(p) / (1 << 20)
}

// cpu returns the processor time used so far, of user and kernel.
func (d *daemon) cpu(t *testing.T) time.Duration {
	t.Helper()
	used, err := d.CPU()
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// saveProfile writes a processor profile of the next seconds into the folder that PROFILE names, if any. It returns
// a function that waits for the end.
func (d *daemon) saveProfile(t *testing.T, name string, seconds int) (wait func()) {
	t.Helper()
	dir := os.Getenv("PROFILE")
	if dir == "" {
		return func() {}
	}
	done := make(chan error, 1)
	d.until(t, d.begin, 20*time.Millisecond, func() error {
		_, err := d.c.node.Metrics(t.Context(), metricsURL)
		return err
	})
	go func() {
		done <- d.fetch(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", metricsAddr, seconds), filepath.Join(dir, name))
	}()
	return func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func (d *daemon) fetch(url, path string) error {
	resp, err := d.c.node.HTTP().Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, body, 0o644)
}
