//go:build e2e && linux

package parity

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// foreign is state of others beside the subject's: virtual servers by address and by mark, a set, chains, a device.
const foreign = `
ipvsadm -A -t 192.0.2.1:7000 -s wlc
ipvsadm -a -t 192.0.2.1:7000 -r 10.244.9.9:7000 -m
ipvsadm -A -u 192.0.2.1:7000
ipvsadm -A -f 7 -s rr
ipvsadm -A -t [2001:db8::1]:7000 -s rr
ipset create FOREIGN hash:ip
ipset add FOREIGN 192.0.2.2
iptables -t nat -N FOREIGN-NAT
iptables -t nat -A PREROUTING -s 192.0.2.3 -j FOREIGN-NAT
iptables -A INPUT -m set --match-set FOREIGN src -j DROP
ip6tables -N FOREIGN6
ip6tables -A OUTPUT -d 2001:db8::2 -j FOREIGN6
nft add table ip foreign
ip link add foreign0 type dummy
ip addr add 192.0.2.4/32 dev foreign0
ip link set foreign0 up
ip rule add from 192.0.2.4 table 77
ip route add 192.0.2.5/32 dev foreign0 table 77
`

// snapshot prints all that a proxy might change.
const snapshot = `
ipvsadm -S -n
ipset save
iptables-save
ip6tables-save
nft list tables
ip -o addr show
ip rule
ip -6 rule
ip route show table all
ip -6 route show table all
`

func TestP44Cleanup(t *testing.T) {
	r := begin(t, "P44", "Cleanup removes all that is the proxy's and nothing else, and can be repeated")
	s := r.service("p44", sourceRanges("10.0.0.0/8", "fd00::/8"))
	s.endpoints(pods(r.A1, r.B1)...)
	n := r.spare()
	n.do(foreign)
	n.do("iptables -t mangle -L -n >/dev/null; ip6tables -t mangle -L -n >/dev/null") // looking is what makes a table
	before := n.state()
	n.start()
	r.settle()
	r.expect(n.pod, s.V(), answeredBy(r.A1, r.B1))
	n.stop()
	for _, round := range []string{"cleanup", "a second cleanup"} {
		if out, err := n.sh(r.subject.cleanup()); err != nil {
			r.Errorf("%s: %v", round, err)
			r.Log(out)
		}
		if d := cmp.Diff(before, n.state()); d != "" {
			r.Errorf("after %s the node is not as before: %s\n%s", round, differences(d), d)
		}
	}
}

// state returns the node's state without what differs from look to look: lines are sorted, since sets are not; counters
// and empty tables are left out.
func (s *spare) state() []string {
	s.row.Helper()
	var out []string
	for line := range strings.Lines(s.do(snapshot)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '*' || line == "COMMIT" {
			continue
		}
		if line[0] == ':' { // a chain with its counters; the built-in ones come with their table
			name, policy, _ := strings.Cut(line, " ")
			if !strings.HasPrefix(policy, "-") {
				continue
			}
			line = name
		}
		if isTable(line) || strings.Contains(line, "fe80:") { // a link-local address comes with any device
			continue
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// isTable tells tables of iptables, which stay once they have been looked at.
func isTable(line string) bool {
	return slices.Contains([]string{
		"table ip nat", "table ip filter", "table ip mangle", "table ip raw", "table ip security",
		"table ip6 nat", "table ip6 filter", "table ip6 mangle", "table ip6 raw", "table ip6 security",
	}, line)
}

// differences puts a difference into one line.
func differences(diff string) string {
	var out []string
	for line := range strings.Lines(diff) {
		if line[0] == '-' || line[0] == '+' {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, " ")
}
