//go:build e2e && linux

package parity

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// foreignServers are virtual servers of others, with and without real servers, by address and by mark, in both
// families.
const foreignServers = `
ipvsadm -A -t 192.0.2.1:7000 -s wlc
ipvsadm -a -t 192.0.2.1:7000 -r 10.244.9.9:7000 -m -w 3
ipvsadm -A -u 192.0.2.1:7000 -s rr
ipvsadm -A -f 7 -s rr
ipvsadm -a -f 7 -r 10.244.9.9:0 -g -w 2
ipvsadm -A -t [2001:db8::1]:7000 -s rr
ipvsadm -a -t [2001:db8::1]:7000 -r [fd24:0:0:9::9]:7000 -m
`

func TestP52Foreign(t *testing.T) {
	r := begin(t, "P52", "Virtual servers of others are left alone, at start, while running, after a restart and a crash")
	if !r.subject.ipvs {
		r.notApplicable("it programs no virtual servers")
	}
	kept, gone := r.service("p52-kept"), r.service("p52-gone")
	kept.endpoints(pods(r.A1, r.B1)...)
	gone.endpoints(pods(r.A1, r.B1)...)
	n := r.spare()
	n.do(foreignServers)
	want := n.foreignServers()
	same := func(when string) {
		r.Helper()
		if d := cmp.Diff(want, n.foreignServers()); d != "" {
			r.Errorf("%s: %s", when, differences(d))
			_, _ = n.sh(foreignServers)
		}
	}
	n.start(r.subject.period("2s"))
	for range 3 { // each is a round of changes, and far longer than a period
		r.settle()
	}
	same("started beside them")
	n.do("ipvsadm -A -t 192.0.2.2:7000 -s rr; ipvsadm -a -t 192.0.2.2:7000 -r 10.244.9.9:7000 -m")
	want = n.foreignServers()
	for range 3 {
		r.settle()
	}
	same("one added while it runs")
	n.stop()
	n.start(r.subject.period("2s"))
	r.settle()
	same("restarted")

	n.kill()
	gone.delete()
	n.start(r.subject.period("2s"))
	r.settle()
	same("started after a crash")
	r.expect(n.pod, kept.C(), answeredBy(r.A1, r.B1))
	for _, f := range []frontend{gone.C(), gone.V()} {
		if servers := n.do("ipvsadm -S -n"); strings.Contains(servers, f.at[0].Addr().String()+":") {
			r.Errorf("the Service deleted during the crash still has %s", f.at[0])
		}
	}
}

// foreignServers returns the virtual servers that are not the subject's, with their real servers.
func (s *spare) foreignServers() []string {
	s.row.Helper()
	var out []string
	for line := range strings.Lines(s.do("ipvsadm -S -n")) {
		if strings.Contains(line, " 192.0.2.") || strings.Contains(line, "-f 7 ") || strings.Contains(line, "[2001:db8:") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	slices.Sort(out)
	return out
}
