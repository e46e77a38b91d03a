//go:build e2e && linux

package parity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

func TestP41Families(t *testing.T) {
	r := begin(t, "P41", "Single stack v4, single stack v6 and dual stack behave alike; a node without IPv6 serves IPv4")
	six, four, dual := r.service("p41-six", families6), r.service("p41-four", families4), r.service("p41-dual")
	for _, s := range []*service{six, four, dual} {
		s.endpoints(pods(r.A1, r.B1)...)
	}
	r.settle()
	for _, s := range []*service{six, four, dual} {
		for _, client := range []*testbed.Host{r.A2, r.N1, r.Out} {
			for _, f := range append(s.externals(r.N1), s.C()) {
				r.expect(client, f, answeredBy(r.A1, r.B1))
			}
		}
	}
	// Nothing of a Service in a family that it does not have.
	foreign := six.N(r.N1)
	foreign.at = four.N(r.N1).onPort(foreign.at[0].Port()).at
	r.expect(r.Out, foreign, refused())

	six.endpoints()
	r.settle()
	for _, f := range append(six.externals(r.N1), six.C()) {
		r.expect(r.A2, f, refused())
	}
	r.withoutIPv6(dual)
}

// withoutIPv6 starts the subject on a node whose IPv6 is off, and sets up the device of its Service addresses, if it has
// one, which gets a link-local address thereby that is not the subject's to remove.
func (r *row) withoutIPv6(s *service) {
	r.Helper()
	n := r.spare()
	n.do("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
	n.start()
	c := s.C()
	c.at = c.at[:1]
	if !c.at[0].Addr().Is4() {
		r.Fatalf("the first ClusterIP is not IPv4: %s", c.at[0])
	}
	for _, client := range []*testbed.Host{n.pod, n.Host} {
		r.until("answer on a node without IPv6", func() error { return r.check(client, c.proto, c.at[0], answeredBy(r.A1, r.B1)) })
	}
	// With its address on the wire again, which went with IPv6: nodes that come later have routes by way of it.
	n.do(fmt.Sprintf("sysctl -qw net.ipv6.conf.all.disable_ipv6=0; ip addr add %s/64 dev eth0 nodad", n.Addr6))
	n.do("ip link set kube-ipvs0 up 2>/dev/null || true")
	r.expect(n.pod, c, answeredBy(r.A1, r.B1))
	if log := r.daemons[n.Host].Tail(1000); strings.Contains(log, "fe80::") {
		r.Errorf("the log of a node with a link-local address speaks of it:\n%s", log)
	}
}
