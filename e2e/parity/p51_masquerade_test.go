//go:build e2e && linux

package parity

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

func TestP51MasqueradeUnderLoad(t *testing.T) {
	r := begin(t, "P51", "2,000 connections, 100 at a time, to a masqueraded node port: all answered, none lost to a clash of source ports")
	s := r.service("p51")
	s.endpoints(ready(r.B1))
	r.settle()
	for _, dst := range s.N(r.N1).at {
		before := r.conntrackLosses()
		if err := flood(r, r.Out, dst, 100, 20); err != nil {
			r.Errorf("out to N at %s: %v", dst, err)
		}
		if after := r.conntrackLosses(); after != before {
			r.Errorf("conntrack on n1 lost connections: %s before, %s after", before, after)
		}
	}
	r.expect(r.A2, s.C(), answeredBy(r.B1).seeing(r.A2)) // what needs no port takes none
}

// flood makes side times each connections, side by side.
func flood(r *row, client *testbed.Host, dst netip.AddrPort, side, each int) error {
	var wg sync.WaitGroup
	errs := make(chan error, side)
	for range side {
		wg.Go(func() {
			tally := client.AskMany(r.Context(), each, testbed.TCP, dst, testbed.Timeout(6*patience))
			if len(tally.Errors) > 0 {
				errs <- fmt.Errorf("%d of %d requests: %s", len(tally.Errors), each, word(tally.Errors[0]))
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// lossCounters are those that tell of a clash, as conntrack -S prints them for each processor.
var lossCounters = regexp.MustCompile(`\b(insert_failed|drop|early_drop)=(\d+)`)

// conntrackLosses returns the sums of N1's counters of lost connections.
func (r *row) conntrackLosses() string {
	r.Helper()
	out, err := r.N1.Command(r.Context(), "conntrack", "-S").CombinedOutput()
	if err != nil {
		r.Fatalf("conntrack -S: %v: %s", err, out)
	}
	sums := map[string]int{}
	for _, m := range lossCounters.FindAllStringSubmatch(string(out), -1) {
		n, _ := strconv.Atoi(m[2]) // digits
		sums[m[1]] += n
	}
	return fmt.Sprint(sums)
}
