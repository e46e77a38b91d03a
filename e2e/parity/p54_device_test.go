//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// healTime is what 2 s on an ordinary machine become on an emulated one, where a process alone takes half a second. It
// is still far below the 30 s after which periodic repairs come.
const healTime = 15 * time.Second

// TestP54Device: whatever network managers do to the device that makes VIPs local, they come back at once; and the
// VIPs are not found among the node's addresses.
func TestP54Device(t *testing.T) {
	r := begin(t, "P54", "Other programs and kube-ipvs0: device, addresses and routes come back at once")
	if !r.subject.ipvs {
		r.notApplicable("it makes no VIP local")
	}
	s := r.service("p54")
	s.endpoints(ready(r.A1))
	r.settle()
	fronts := []frontend{s.C(), s.V(), s.E()}
	for _, f := range fronts {
		r.expect(r.A2, f, answeredBy(r.A1))
	}
	for _, damage := range []string{
		"ip link set kube-ipvs0 down", "ip addr flush dev kube-ipvs0; ip route flush table local dev kube-ipvs0; ip -6 route flush table local dev kube-ipvs0", "ip link del kube-ipvs0",
	} {
		out, err := r.N1.Command(r.Context(), "bash", "-c", damage).CombinedOutput()
		if err != nil {
			r.Errorf("%s: %v: %s", damage, err, out)
		}
		r.heals(damage, fronts)
	}
	r.noVIPsAmongAddresses()
}

// heals waits for answers from all frontends, not longer than healTime.
func (r *row) heals(damage string, fronts []frontend) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), healTime)
	defer cancel()
	err := r.await(ctx, "VIPs after "+damage, func() error {
		for _, f := range fronts {
			for _, dst := range f.at {
				if _, err := r.A2.Ask(ctx, f.proto, dst, testbed.Timeout(time.Second)); err != nil {
					return fmt.Errorf("%s %s: %w", f.name, dst, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		r.Errorf("%v", err)
	}
}

// noVIPsAmongAddresses looks for VIPs where programs look for the node's addresses: on all devices but kube-ipvs0.
func (r *row) noVIPsAmongAddresses() {
	r.Helper()
	out, err := r.N1.Command(r.Context(), "ip", "-o", "addr").Output()
	r.must(err)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[1] == "kube-ipvs0" {
			continue
		}
		for _, vip := range []string{"203.0.113.", "198.51.100.", "10.96.", "fd98:", "fd96:"} {
			if strings.HasPrefix(fields[3], vip) {
				r.Errorf("a VIP is an address of the node: %s", strings.TrimSpace(line))
			}
		}
	}
}
