//go:build e2e && linux

package parity

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP49SetSize: sets of both families hold more than ipset's default of 65,536 entries.
func TestP49SetSize(t *testing.T) {
	const services, ports, ips = 20, 100, 34
	r := begin(t, "P49", fmt.Sprintf("%d external frontends in each family, more than a set's default of 65,536 entries: "+
		"every sampled one answers, masqueraded; other ports are refused", services*ports*ips))
	if r.subject.name == "kube-proxy-ipvs" {
		r.notApplicable("136,000 entries, each added by a process of its own, take hours; its sets end at 65,536 by their creation")
	}
	r.alone()
	n := r.spare()
	r.Cleanup(func() { // the node stays, and would go on to cost
		n.kill()
		if _, err := n.sh("ipvsadm -C"); err != nil {
			r.Errorf("%v", err)
		}
	})
	first := []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8:49::1")}
	r.many("p49", services, r.B1, func(i int, s *corev1.Service) {
		s.Spec.Ports = nil
		for p := range ports {
			port := controlplane.TCP(int32(1000+i*ports+p), podPort)
			port.Name = fmt.Sprintf("p%d", p)
			s.Spec.Ports = append(s.Spec.Ports, port)
		}
		for _, a := range first {
			for range ips {
				s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, a.String())
				a = a.Next()
			}
		}
	})
	n.start()
	begin := time.Now()
	want := answeredBy(r.B1).seeing(n.Host)
	for _, a := range first {
		ip := 0 // that of a, counted from the first
		for sample := 0; sample < services*ports*ips; sample += 4999 {
			for ; ip < sample/(services*ports); ip++ {
				a = a.Next()
			}
			dst := netip.AddrPortFrom(a, uint16(1000+sample%(services*ports)))
			if err := within(15*time.Minute, func() error { return r.check(n.pod, testbed.TCP, dst, want) }); err != nil {
				r.Fatalf("%s: %v", dst, err)
			}
		}
		r.expect(n.pod, at("an address of them", testbed.TCP, 999, a), refused())
	}
	r.saw("the last sample answered %.0f s after the start", time.Since(begin).Seconds())
	if r.subject.ipvs {
		r.Logf("sets and their sizes:\n%s", n.do("ipset list -t | awk '/^Name:/ {n=$2} /^Number/ && $4 {print n, $4}'"))
	}
	if log := r.daemons[n.Host].Tail(1000); strings.Contains(log, "full") {
		r.Errorf("the log speaks of a full set")
	}
}
