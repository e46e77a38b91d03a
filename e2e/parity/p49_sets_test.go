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
)

func TestP49SetSize(t *testing.T) {
	r := begin(t, "P49", "More than 65,536 external frontends: every sampled one answers, masqueraded")
	if r.subject.name == "kube-proxy-ipvs" {
		r.notApplicable("68,000 entries, each added by a process of 0.15 s and more, take hours; its sets end at 65,536 by their creation")
	}
	const services, ports, ips = 20, 100, 34 // 68,000 frontends
	at := func(ip, port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(1 + ip)}), uint16(1000+port))
	}
	r.alone()
	n := r.spare()
	r.Cleanup(func() { // the node stays, and would go on to cost
		n.kill()
		if _, err := n.sh("ipvsadm -C"); err != nil {
			r.Errorf("%v", err)
		}
	})
	r.many("p49", services, r.B1, func(i int, s *corev1.Service) {
		families4(s)
		s.Spec.Ports = nil
		for p := range ports {
			port := controlplane.TCP(int32(at(0, i*ports+p).Port()), podPort)
			port.Name = fmt.Sprintf("p%d", p)
			s.Spec.Ports = append(s.Spec.Ports, port)
		}
		for ip := range ips {
			s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, at(ip, 0).Addr().String())
		}
	})
	n.start()
	begin := time.Now()
	want := answeredBy(r.B1).seeing(n.Host)
	for sample := 0; sample < ips*services*ports; sample += 4999 {
		dst := at(sample/(services*ports), sample%(services*ports))
		if err := within(15*time.Minute, func() error { return r.check(n.pod, "TCP", dst, want) }); err != nil {
			r.Fatalf("%s: %v", dst, err)
		}
	}
	r.Logf("the last sample answered %.0f s after the start", time.Since(begin).Seconds())
	if r.subject.ipvs {
		r.Logf("%s", n.do("ipset list -t | grep -E 'Name|Number|Header'"))
	}
	if log := r.daemons[n.Host].Tail(1000); strings.Contains(log, "full") {
		r.Errorf("the log speaks of a full set")
	}
}
