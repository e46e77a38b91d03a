//go:build e2e && linux

package parity

import (
	"context"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP53Neighbours: a node answers ARP and neighbour solicitations for its own addresses only. The external IPs are
// in the nodes' own network, where an announcer would answer for them.
func TestP53Neighbours(t *testing.T) {
	r := begin(t, "P53", "Nodes do not answer ARP and NDP for every VIP")
	vips := addrs("192.168.50.200", "fd50::200")
	s := r.service("p53", func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = []string{vips[0].String(), vips[1].String()}
	})
	s.endpoints(ready(r.A1))
	r.settle()
	for _, vip := range vips {
		at := netip.AddrPortFrom(vip, 80)
		if a, err := r.A2.Ask(r.Context(), testbed.TCP, at); err != nil || a.Pod != r.A1.Name {
			r.Errorf("a2 to %s: answered by %q, %v; want a1", at, a.Pod, err)
		}
		// Longer than the three seconds after which a neighbour that does not answer is given up.
		if a, err := r.Out.Ask(r.Context(), testbed.TCP, at, testbed.Timeout(6*time.Second)); err == nil {
			r.Errorf("a node answered for %s, so that %s was reached", vip, a.Pod)
		}
		r.ownAddress(vip)
		r.until("the node that has "+vip.String()+" serves it", func() error {
			_, err := r.Out.Ask(r.Context(), testbed.TCP, at, testbed.Timeout(time.Second))
			return err
		})
	}
}

// ownAddress gives N1 an address on its network until the end of the row.
func (r *row) ownAddress(a netip.Addr) {
	r.Helper()
	ctx := context.WithoutCancel(r.Context())
	bits := "/32"
	if a.Is6() {
		bits = "/128"
	}
	run := func(verb string) {
		if out, err := r.N1.Command(ctx, "ip", "addr", verb, a.String()+bits, "dev", "eth0").CombinedOutput(); err != nil {
			r.Errorf("ip addr %s %s: %v: %s", verb, a, err, out)
		}
	}
	run("add")
	r.Cleanup(func() { run("del") })
}
