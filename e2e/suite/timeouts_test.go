//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// timeouts returns what IPVS and connection tracking have on a node: TCP, TCP after FIN and UDP of IPVS; then TCP and
// UDP of connection tracking.
func (n *node) timeouts(t *testing.T) string {
	t.Helper()
	out := regexp.MustCompile(`\d+ \d+ \d+`).FindString(n.run(t, "ipvsadm", "-L", "--timeout"))
	err := n.Do(func() error {
		for _, name := range []string{"tcp_timeout_established", "udp_timeout", "udp_timeout_stream"} {
			b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
			if err != nil {
				return err
			}
			out += " " + strings.TrimSpace(string(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestIdleTimeouts: by default IPVS keeps an idle TCP connection as long as connection tracking does, and leaves UDP to
// the kernel (P24); what others change is put right.
func TestIdleTimeouts(t *testing.T) {
	c := quick(t)
	n1 := c.nodes[0]
	want := "86400 120 300 86400 30 120"
	if got := n1.timeouts(t); got != want {
		t.Errorf("timeouts are %s, want %s", got, want)
	}
	n1.run(t, "ipvsadm", "--set", "900", "0", "0")
	eventually(t, startLimit, func() error {
		if got := n1.timeouts(t); got != want {
			return fmt.Errorf("timeouts are %s, want %s", got, want)
		}
		return nil
	})
}

// TestTimeoutFlags: a TCP connection that is idle for longer than the flag says ends with an error, and a UDP timeout
// counts for both tables (P24, P30).
func TestTimeoutFlags(t *testing.T) {
	c := fresh(t, options{nodes: oneNode, args: []string{"--ipvs-tcp-timeout=3s", "--ipvs-udp-timeout=200s", "--ipvs-tcpfin-timeout=7s"}})
	n1 := c.nodes[0]
	if got, want := n1.timeouts(t), "3 7 200 86400 200 200"; got != want {
		t.Errorf("timeouts are %s, want %s", got, want)
	}
	m := newService("timeouts", 170, c.A2)
	c.apply(t, m)
	s, err := c.A1.Dial(t.Context(), testbed.TCP, m.at(4), testbed.Timeout(startLimit))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, startLimit, func() error {
		conns, err := n1.table.Conns(t.Context(), keyOf(testbed.TCP, m.at(4)))
		for _, c := range conns {
			if c.Active+c.Inactive > 0 {
				err = errors.Join(err, fmt.Errorf("the idle connection is still there: %+v", c))
			}
		}
		return err
	})
	if err := s.Ping(); err == nil || errors.Is(err, testbed.ErrTimeout) {
		t.Errorf("after it was forgotten: %v, want an end", err)
	}
}
