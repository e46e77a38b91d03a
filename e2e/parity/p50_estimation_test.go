//go:build e2e && linux

package parity

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestP50Estimation: the kernel's estimators, which walk over the counters of every real server again and again, can
// be switched off, and the Services work without them. What they cost is not measured here: times on an emulated
// machine say nothing about it.
func TestP50Estimation(t *testing.T) {
	r := begin(t, "P50", "Estimators that stall the packet path can be switched off")
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
	r.until("net.ipv4.vs.run_estimation can be read", func() error {
		return r.N1.Do(func() error {
			text, err := os.ReadFile("/proc/sys/net/ipv4/vs/run_estimation")
			value = strings.TrimSpace(string(text))
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
			return nil
		})
	})
	if value != "0" {
		r.Errorf("net.ipv4.vs.run_estimation is %s, and there is no switch for it", value)
	}
	for _, f := range []frontend{s.C(), s.V(), s.E(), s.N(r.N1)} {
		r.expect(r.A2, f, answeredBy(r.A1, r.B1))
	}
	r.Cleanup(func() {
		if err := r.N1.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/vs/run_estimation", []byte("1"), 0) }); err != nil {
			r.Errorf("%v", err)
		}
	})
}
