//go:build e2e && linux

package parity

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP50Estimation: the kernel's estimators, which walk over the counters of every real server again and again, can be
// switched off, and the Services work without them. What they cost is observed and put into the table; times on an
// emulated machine are nothing to judge by.
func TestP50Estimation(t *testing.T) {
	r := begin(t, "P50", "Estimators that stall the packet path can be switched off (round trips of a ping beside many real servers are only observed)")
	if !r.subject.ipvs {
		r.notApplicable("it has no virtual servers")
	}
	s := r.service("p50")
	s.endpoints(pods(r.A1, r.B1)...)
	if r.subject.kubeHop() {
		r.restart(r.N1, "--ipvs-estimation=false")
	}
	r.settle()
	var value string
	r.until("net.ipv4.vs.run_estimation can be read", func() (err error) {
		value, err = r.readOn(r.N1, runEstimation)
		return err
	})
	if value != "0" {
		r.Errorf("net.ipv4.vs.run_estimation is %s, and there is no switch for it", value)
	}
	for _, f := range []frontend{s.C(), s.V(), s.E(), s.N(r.N1)} {
		r.expect(r.A2, f, answeredBy(r.A1, r.B1))
	}
	r.Cleanup(func() {
		if err := r.N1.Do(func() error { return os.WriteFile(runEstimation, []byte("1"), 0) }); err != nil {
			r.Errorf("%v", err)
		}
	})
	r.observeEstimation()
}

const runEstimation = "/proc/sys/net/ipv4/vs/run_estimation"

// observeEstimation measures pings through a node without real servers, with many, and with many whose counters nobody
// reads. No proxy runs there: they would be its real servers, which cost as others do.
func (r *row) observeEstimation() {
	r.Helper()
	servers, period := 50_000, time.Minute
	if testing.Short() {
		servers, period = 5_000, 5*time.Second
	}
	n := r.spare()
	r.Cleanup(func() { n.do("ipvsadm -C") })
	r.saw("round trips: %s without real servers", r.pingFor(period, n.pod, r.N1))
	var rules strings.Builder
	const each = 250
	for i := range servers / each {
		fmt.Fprintf(&rules, "-A -t 192.0.2.1:%d -s rr\n", 1+i)
		for j := range each {
			fmt.Fprintf(&rules, "-a -t 192.0.2.1:%d -r 10.99.0.%d:80 -m\n", 1+i, 1+j)
		}
	}
	add := n.Command(r.Context(), "ipvsadm", "-R")
	add.Stdin = strings.NewReader(rules.String())
	if out, err := add.CombinedOutput(); err != nil {
		r.Fatalf("ipvsadm -R: %v: %s", err, out)
	}
	r.saw("%s with %d", r.pingFor(period, n.pod, r.N1), servers)
	r.must(n.Do(func() error { return os.WriteFile(runEstimation, []byte("0"), 0) }))
	r.saw("%s without estimation", r.pingFor(period, n.pod, r.N1))
}

// pingFor pings a hundred times a second and returns how long the answers took.
func (r *row) pingFor(d time.Duration, from, to *testbed.Host) string {
	r.Helper()
	var took []time.Duration
	lost := 0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		begin := time.Now()
		if how := ping(from, to.Addr4); how != "answered" {
			lost++
			continue
		}
		took = append(took, time.Since(begin))
	}
	if len(took) == 0 {
		r.Fatalf("%d pings from %s to %s have no answer", lost, from, to)
	}
	slices.Sort(took)
	ms := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1))].Microseconds()) / 1000 }
	text := fmt.Sprintf("%.1f ms, p99.9 %.1f ms", ms(0.5), ms(0.999))
	if lost > 0 {
		text += fmt.Sprintf(", %d of %d lost", lost, lost+len(took))
	}
	return text
}
