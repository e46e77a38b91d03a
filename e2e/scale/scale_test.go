//go:build e2e && linux

package scale

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/ipvs"
)

// defaultScale is the number of Services, removed that of those which the last step deletes.
const (
	defaultScale = 10000
	removed      = 100
)

// TestScale fills a node, restarts its daemon, changes one endpoint and deletes some Services.
func TestScale(t *testing.T) {
	n := scale(t)
	c := newCluster(t)
	r := &report{}
	defer r.print(t, n)

	begin := time.Now()
	if err := c.create(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	r.add("objects created in the API server", time.Since(begin))

	c.fill(t, r, n).kill(t)
	d := c.adopt(t, r, n)
	d.changeEndpoint(t, r)
	d.removeServices(t, r, n)
	d.idle(t, r)
	resident, peak := d.memory(t)
	r.addf("resident in the end, peak", "%.0f MiB, %.0f MiB", resident, peak)
}

func scale(t *testing.T) int {
	t.Helper()
	text := os.Getenv("SCALE")
	if text == "" {
		return defaultScale
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= removed {
		t.Fatalf("SCALE=%s: want a number above %d", text, removed)
	}
	return n
}

// fill starts the daemon on an empty kernel.
func (c *cluster) fill(t *testing.T, r *report, n int) *daemon {
	t.Helper()
	d := c.startDaemon(t)
	wait := d.saveProfile(t, "fill.pprof", 30)
	r.add("start on an empty kernel until all is served", d.untilServes(t, n+1))
	d.addFigures(t, r)
	r.addf("real servers found in the kernel", "%d", c.check(t, 0, n, 0))
	wait()
	return d
}

// adopt starts the daemon on the kernel that an earlier one filled: nothing may be done to it.
func (c *cluster) adopt(t *testing.T, r *report, n int) *daemon {
	t.Helper()
	d := c.startDaemon(t)
	wait := d.saveProfile(t, "adopt.pprof", 30)
	r.add("start on the filled kernel, after kill -9", d.untilServes(t, n+1))
	d.addFigures(t, r)
	if ops := d.operations(t); ops != 0 {
		t.Errorf("adopting the kernel's state took %d operations, want 0", ops)
	}
	c.check(t, 0, n, 0)
	wait()
	return d
}

// kill ends the daemon without a chance to tidy up.
func (d *daemon) kill(t *testing.T) {
	t.Helper()
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
}

// addFigures adds what the start has cost so far.
func (d *daemon) addFigures(t *testing.T, r *report) {
	t.Helper()
	seconds, count := d.syncSeconds(t)
	r.addf("  of which in syncs", "%.2f s in %d", seconds, count)
	r.addf("  processor time", "%.2f s", d.cpu(t).Seconds())
	_, peak := d.memory(t)
	r.addf("  peak resident memory", "%.0f MiB", peak)
	r.addf("  kernel operations", "%d", d.operations(t))
}

// changeEndpoint adds an endpoint to one Service: one kernel operation, whatever the number of Services.
func (d *daemon) changeEndpoint(t *testing.T, r *report) {
	t.Helper()
	before := d.operations(t)
	added := ipvs.Dest{Addr: d.c.addrs(0, endpoints+1)[endpoints], Port: podPort}
	k := ipvs.Key{Addr: clusterIP(0), Port: servicePort, Proto: ipvs.TCP}
	begin := time.Now()
	if _, err := controlplane.ApplySlice(t.Context(), d.c.client, d.c.newSlice(0, endpoints+1)); err != nil {
		t.Fatal(err)
	}
	took := d.until(t, begin, time.Millisecond, func() error {
		conns, err := d.c.table.Conns(t.Context(), k)
		if _, found := conns[added]; err == nil && !found {
			err = fmt.Errorf("%s has no real server %s", k, added)
		}
		return err
	})
	r.add("one endpoint added, from the request to the kernel", took)
	// The kernel is ahead of the count by a moment.
	d.until(t, begin, time.Millisecond, func() error {
		if d.operations(t) == before {
			return fmt.Errorf("still %d operations", before)
		}
		return nil
	})
	ops := d.operations(t) - before
	r.addf("  kernel operations", "%d", ops)
	if ops != 1 {
		t.Errorf("one more endpoint took %d operations, want 1", ops)
	}
}

// removeServices deletes the last Services.
func (d *daemon) removeServices(t *testing.T, r *report, n int) {
	t.Helper()
	before := d.operations(t)
	begin := time.Now()
	if err := d.c.remove(t.Context(), n-removed, n); err != nil {
		t.Fatal(err)
	}
	r.add(fmt.Sprintf("%d Services deleted in the API server", removed), time.Since(begin))
	d.until(t, begin, 100*time.Millisecond, func() error {
		m, err := d.c.node.Metrics(t.Context(), metricsURL)
		if got := int(m["kubehop_services"]); err == nil && got != n-removed+1 {
			err = fmt.Errorf("%d services", got)
		}
		return err
	})
	r.add("  from the first request until they are gone", time.Since(begin))
	r.addf("  kernel operations", "%d", d.operations(t)-before)
	d.c.check(t, 0, n-removed, 1)
}

// idle waits for the next periodic verification, with nothing else to do, and measures it.
func (d *daemon) idle(t *testing.T, r *report) {
	t.Helper()
	ops, cpu := d.operations(t), d.cpu(t)
	seconds, count := d.syncSeconds(t)
	wait := d.saveProfile(t, "verify.pprof", 40)
	var later float64
	begin := time.Now()
	d.until(t, begin, time.Second, func() error {
		var n int
		if later, n = d.syncSeconds(t); n <= count {
			return fmt.Errorf("still %d syncs", n)
		}
		return nil
	})
	r.addf("one periodic verification of the kernel", "%.2f s", later-seconds)
	r.addf("  processor time of it and of the wait for it", "%.2f s in %.0f s", (d.cpu(t) - cpu).Seconds(), time.Since(begin).Seconds())
	wait()
	if got := d.operations(t); got != ops {
		t.Errorf("an idle verification took %d operations", got-ops)
	}
}

// report is a table of figures.
type report struct{ lines []string }

func (r *report) add(what string, took time.Duration) { r.addf(what, "%.3f s", took.Seconds()) }

func (r *report) addf(what, format string, args ...any) {
	r.lines = append(r.lines, what+"\t"+fmt.Sprintf(format, args...))
}

func (r *report) print(t *testing.T, n int) {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Error(err)
	}
	fmt.Printf("\n%d Services with %d endpoints each, Linux %s\n", n, endpoints, unix.ByteSliceToString(uts.Release[:]))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(r.lines, "\n"))
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
}
