//go:build e2e && linux

package suite

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// foreign is what somebody else has on a node: virtual servers of both kinds, one of them inside the ClusterIP range
// but excluded, a set, rules and chains, and a dummy device with addresses.
const foreign = `
ipvsadm -A -t 192.0.2.1:80 -s wlc -p 60
ipvsadm -a -t 192.0.2.1:80 -r 10.244.1.11:8080 -m -w 3
ipvsadm -A -t [2001:db8::1]:80 -s rr
ipvsadm -A -f 7 -s rr
ipvsadm -a -f 7 -r 10.244.1.12:8080 -i
ipvsadm -A -t 10.96.200.1:80 -s lc
ipvsadm -a -t 10.96.200.1:80 -r 10.244.1.11:8080 -m
ipset create FOREIGN hash:ip,port
ipset add FOREIGN 192.0.2.1,tcp:80
ipset create KUBE-FOREIGN hash:net
iptables -t nat -N FOREIGN
iptables -t nat -A FOREIGN -m set --match-set FOREIGN dst,dst -j RETURN
iptables -t nat -A PREROUTING -j FOREIGN
iptables -N FOREIGN
iptables -A FOREIGN -s 192.0.2.9 -j DROP
iptables -I INPUT -j FOREIGN
ip6tables -t nat -N FOREIGN
ip6tables -t nat -A POSTROUTING -s 2001:db8::9 -j FOREIGN
ip6tables -N KUBE-FIREWALL
ip6tables -A FORWARD -s 2001:db8::9 -j KUBE-FIREWALL
ip link add other0 type dummy
ip addr add 192.0.2.1/32 dev other0
ip -6 addr add 2001:db8::1/128 dev other0 nodad
ip link set other0 up
ip route add local 192.0.2.77 dev other0
ip rule add from 192.0.2.9 lookup 100 priority 100
`

const exclude = "--ipvs-exclude-cidrs=10.96.200.0/24"

// runLines runs commands, one a line.
func (n *node) runLines(t *testing.T, script string) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		n.run(t, strings.Fields(line)...)
	}
}

// TestCleanup: cleanup leaves the node as it was before the daemon, with everything of others; it may run twice.
func TestCleanup(t *testing.T) {
	var before map[string][]string
	c := fresh(t, options{nodes: oneNode, args: []string{exclude}, before: func(n *node) error {
		n.runLines(t, foreign)
		before = n.snapshot(t)
		return nil
	}})
	n1 := c.nodes[0]
	m := newService("cleanup", 30, c.A1)
	c.apply(t, m)
	for _, f := range m.frontends(c.N1) {
		if _, err := c.Out.Ask(t.Context(), testbed.TCP, f.addr); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.A2.Ask(t.Context(), testbed.TCP, m.at(4)); err != nil {
		t.Fatal(err)
	}
	during := n1.snapshot(t)
	for command, lines := range before {
		for _, l := range lines {
			if !slices.Contains(during[command], l) {
				t.Errorf("while the daemon runs, %s lacks %q", command, l)
			}
		}
	}
	n1.stop(t, syscall.SIGTERM)
	for range 2 {
		n1.run(t, os.Getenv("KUBE_HOP"), "cleanup", exclude)
		sameSnapshot(t, before, n1.snapshot(t))
		if tables := n1.run(t, "nft", "list", "tables"); strings.Contains(tables, "kube-hop") {
			t.Errorf("left behind in nf_tables:\n%s", tables)
		}
	}
}
