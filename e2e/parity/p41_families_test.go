//go:build e2e && linux

package parity

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP41Families: the truth table, which asks dual-stack Services, holds for those of a single family too.
func TestP41Families(t *testing.T) {
	title, single := "A quarter of the truth table for Services of a single family (v6)", map[string]option{"six": families6}
	if !testing.Short() {
		title, single["four"] = "The truth table for Services of a single family (v4, v6)", families4
	}
	r := begin(t, "P41", title+": nothing in the other one, nothing left "+
		"without endpoints; a node without IPv6 serves IPv4, link-local addresses are left alone")
	services := map[string]truthServices{}
	for name, family := range single {
		services[name] = r.truthServices("p41-"+name, family)
	}
	six, four, dual := r.service("p41-six", families6), r.service("p41-four", families4), r.service("p41-dual")
	for _, s := range []*service{six, four, dual} {
		s.endpoints(pods(r.A1, r.B1)...)
	}
	r.settle()
	for name := range single {
		n := 0
		r.eachTruth(func(tr truth, id string, front func(*service) frontend) {
			if n++; testing.Short() && n%4 != 0 {
				return
			}
			tr.check(r, services[name], func(s *service) frontend {
				f := front(s)
				f.name = id + " of a Service of family " + name
				return f
			})
		})
	}
	r.oneFamily(six, four)
	r.nothingLeft(families6)
	r.nothingLeft(families4)
	r.withoutIPv6(dual)
	r.deviceUp(dual)
}

// oneFamily: nothing of a Service in a family that it does not have, and nobody answers at zero endpoints.
func (r *row) oneFamily(six, four *service) {
	r.Helper()
	foreign := six.N(r.N1)
	foreign.at = four.N(r.N1).onPort(foreign.at[0].Port()).at
	r.expect(r.Out, foreign, refused())
	foreign = four.N(r.N1)
	foreign.at = six.N(r.N1).onPort(foreign.at[0].Port()).at
	r.expect(r.Out, foreign, refused())

	for _, s := range []*service{six, four} {
		for _, client := range []*testbed.Host{r.A2, r.N1, r.Out} {
			for _, f := range append(s.externals(r.N1), s.C()) {
				r.expect(client, f, answeredBy(r.A1, r.B1))
			}
		}
		s.endpoints()
		r.settle()
		for _, f := range append(s.externals(r.N1), s.C()) {
			r.expect(r.A2, f, refused())
		}
	}
}

// nothingLeft: no real server of a Service is left at zero endpoints, if it had no connections that could go on.
func (r *row) nothingLeft(family option) {
	r.Helper()
	if !r.subject.ipvs {
		return
	}
	s := r.service(fmt.Sprintf("p41-quiet-%d", r.services), family)
	s.endpoints(pods(r.A1, r.B1)...)
	r.settle()
	fronts := append(s.externals(r.N1), s.C())
	if r.noServers(fronts) == nil {
		r.Errorf("a Service with endpoints has no server")
	}
	s.endpoints()
	r.settle()
	r.until("no server left", func() error { return r.noServers(fronts) })
}

// noServers returns an error that names a real server of the frontends in n1's kernel.
func (r *row) noServers(fronts []frontend) error {
	out, err := r.N1.Command(r.Context(), "ipvsadm", "-S", "-n").Output()
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		for _, f := range fronts {
			for _, dst := range f.at {
				if strings.HasPrefix(line, "-a ") && strings.Contains(line, " "+dst.String()+" ") {
					return fmt.Errorf("a Service without endpoints has a server at %s: %s", f.name, line)
				}
			}
		}
	}
	return nil
}

// withoutIPv6 starts the subject on a node whose IPv6 is off.
func (r *row) withoutIPv6(s *service) {
	r.Helper()
	n := r.spare()
	n.do("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
	n.start(r.subject.period("1s"))
	c := s.C()
	c.at = c.at[:1]
	if !c.at[0].Addr().Is4() {
		r.Fatalf("the first ClusterIP is not IPv4: %s", c.at[0])
	}
	v4 := []frontend{c, s.V(), s.E(), s.N(n.Host)}
	for _, f := range v4 {
		for _, client := range []*testbed.Host{n.pod, n.Host} {
			r.until("answer on a node without IPv6", func() error { return r.check(client, f.proto, f.at[0], answeredBy(r.A1, r.B1)) })
		}
	}
	r.idle(3 * time.Second) // periods in which it could complain again
	r.wantQuiet(n, "without IPv6")
	// With its address on the wire again, which went with IPv6: nodes that come later have routes by way of it.
	n.do(fmt.Sprintf("sysctl -qw net.ipv6.conf.all.disable_ipv6=0; ip addr add %s/64 dev eth0 nodad", n.Addr6))
	n.stop()
}

// deviceUp sets up the device of the Service addresses, if the subject has one: it gets a link-local address thereby
// that is not the subject's to remove.
func (r *row) deviceUp(s *service) {
	r.Helper()
	n := r.spare()
	n.start(r.subject.period("1s"))
	r.settle()
	n.do("! ip link show kube-ipvs0 >/dev/null 2>&1 || ip link set kube-ipvs0 up")
	linkLocal := "ip -o -6 addr show dev kube-ipvs0 scope link 2>/dev/null || true"
	before := n.do(linkLocal)
	r.idle(3 * time.Second)
	r.settle()
	for _, f := range append(s.externals(n.Host), s.C()) {
		r.expect(n.pod, f, answeredBy(r.A1, r.B1))
	}
	if after := n.do(linkLocal); after != before {
		r.Errorf("link-local addresses of the device before: %q, after: %q", before, after)
	}
	r.wantQuiet(n, "whose device is up")
}

// wantQuiet reports errors in the subject's log, and more than one line about what IPv6 lacks.
func (r *row) wantQuiet(n *spare, what string) {
	r.Helper()
	var missing []string
	for line := range strings.Lines(r.daemons[n.Host].Tail(10000)) {
		level, _, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(level, "E") || strings.HasPrefix(level, "F") || strings.Contains(line, "fe80::"):
			r.Errorf("in the log of a node %s: %s", what, line)
		case strings.Contains(line, "IPv6"):
			missing = append(missing, line)
		}
	}
	r.Logf("lines about IPv6 on a node %s: %q", what, missing)
	if len(missing) > 1 {
		r.Errorf("%d lines about IPv6 on a node %s, such as %s", len(missing), what, missing[1])
	}
}
