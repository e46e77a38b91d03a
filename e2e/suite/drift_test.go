//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

// others is what must survive drift and its repair. Virtual servers of others are not part of it: one of the steps
// deletes all of them.
const others = `
ipset create FOREIGN hash:ip
ipset add FOREIGN 192.0.2.1
iptables -N FOREIGN
iptables -A FOREIGN -m set --match-set FOREIGN src -j DROP
iptables -A INPUT -j FOREIGN
`

// TestDrift: what others destroy of ours is put right by the next verification, and counted. That it comes
// once a period is tested with a clock of its own, in package proxier; here the deadlines are those of a slow machine.
func TestDrift(t *testing.T) {
	c := quick(t)
	n1 := c.nodes[0]
	m := newService("drift", 40, c.A1)
	c.apply(t, m)
	n1.runLines(t, others)
	before, state := n1.snapshot(t), n1.dump(t)
	for _, step := range []struct {
		name, kind, damage string
	}{
		{"all virtual servers", "ipvs", "ipvsadm -C"},
		{"weight", "ipvs", fmt.Sprintf("ipvsadm -e -t %s -r %s -m -w 0", m.at(4), endpoint(c.A1, m.at(4), podPort))},
		{"nat table IPv4", "rules", "iptables -t nat -F"},
		{"nat table IPv6", "rules", "ip6tables -t nat -F"},
		{"guard rules", "rules", "iptables -F KUBE-HOP-GUARD\niptables -F KUBE-HOP-INPUT\niptables -F KUBE-HOP-FORWARD"},
		{"set entries", "set", "ipset flush KUBE-HOP-SERVED"},
		{"set", "set", "ip6tables -F KUBE-HOP-GUARD\nip6tables -F KUBE-HOP-FLOWS\nipset destroy KUBE-HOP-6-SERVED"},
		{"rules of nf_tables", "nftables", "nft flush chain ip kube-hop reply-forward"},
		{"elements of nf_tables", "nftables", "nft flush set ip kube-hop frontends"},
		{"table of nf_tables", "nftables", "nft delete table ip6 kube-hop"},
		{"device", "vip", "ip link del kube-ipvs0"},
		{"sysctl", "sysctl", ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			series := fmt.Sprintf("kubehop_drift_repairs_total{kind=%q", step.kind)
			repairs := n1.metric(t, series)
			if step.damage != "" {
				n1.runLines(t, step.damage)
			} else {
				n1.setSysctl(t, "net/ipv4/vs/conntrack", "0")
			}
			eventually(t, 2*quickPeriod+startLimit, func() error {
				if n1.metric(t, series) == repairs {
					return fmt.Errorf("no repair of kind %s was counted", step.kind)
				}
				return n1.holds(t, state)
			})
			eventually(t, quickPeriod+10*time.Second, func() error { return c.everyoneIsServed(t, m) })
		})
	}
	sameSnapshot(t, before, n1.snapshot(t))
}

// holds reports an error unless the kernel's virtual servers, addresses and the sysctl are as they were.
func (n *node) holds(t *testing.T, state ipvs.State) error {
	if !reflect.DeepEqual(n.dump(t), state) {
		return errors.New("virtual servers or addresses are not what they were")
	}
	return n.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv4/vs/conntrack")
		if err == nil && string(text) != "1\n" {
			err = fmt.Errorf("net.ipv4.vs.conntrack is %q", text)
		}
		return err
	})
}

func (n *node) setSysctl(t *testing.T, path, value string) {
	t.Helper()
	if err := n.Do(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

// everyoneIsServed asks every frontend from a pod, from the node and from outside.
func (c *cluster) everyoneIsServed(t *testing.T, m *manifest) error {
	var errs []error
	for _, from := range []*testbed.Host{c.A2, c.N1, c.Out} {
		for _, f := range m.frontends(c.N1) {
			_, err := from.Ask(t.Context(), testbed.TCP, f.addr, testbed.Timeout(time.Second))
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
