//go:build e2e && linux

package parity

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP24IdleTCP: an idle connection lives as long as connection tracking remembers it. The kernel is asked, since to
// wait for it takes longer than anybody has.
func TestP24IdleTCP(t *testing.T) {
	r := begin(t, "P24", "By default IPVS keeps an idle TCP connection as long as connection tracking does")
	if !r.subject.ipvs {
		r.notApplicable("has no table of connections beside connection tracking")
	}
	tracked, err := r.readOn(r.N1, "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established")
	r.must(err)
	out, err := r.N1.Command(r.Context(), "ipvsadm", "-L", "--timeout").Output()
	r.must(err)
	if ipvs := regexp.MustCompile(`\d+`).FindString(string(out)); ipvs != tracked {
		r.Errorf("IPVS forgets an idle connection after %s s, connection tracking after %s s", ipvs, tracked)
	}
}

// readOn reads a file of /proc in the host's network namespace.
func (r *row) readOn(h *testbed.Host, path string) (text string, err error) {
	derr := h.Do(func() error {
		b, err := os.ReadFile(path)
		text = strings.TrimSpace(string(b))
		return err
	})
	return text, derr
}

// TestP30IdleUDP: a UDP flow that was idle for less than the timeout goes on with the same pod and as the same client,
// which takes both tables to remember it.
func TestP30IdleUDP(t *testing.T) {
	r := begin(t, "P30", "The larger UDP timeout counts for IPVS and for connection tracking")
	if !r.subject.ipvs {
		r.notApplicable("has no table of connections beside connection tracking")
	}
	r.restart(r.N1, "--ipvs-udp-timeout=200s")
	for _, name := range []string{"udp_timeout", "udp_timeout_stream"} {
		got, err := r.readOn(r.N1, "/proc/sys/net/netfilter/nf_conntrack_"+name)
		r.must(err)
		if got != "200" {
			r.Errorf("IPVS keeps an idle flow for 200 s, connection tracking (nf_conntrack_%s) for %s s", name, got)
		}
	}
	s := r.service("p30", over(testbed.UDP))
	s.endpoints(pods(r.A1, r.A2, r.B1, r.B2)...)
	r.settle()
	for _, dst := range s.N(r.N1).at {
		stream, err := r.Out.Dial(r.Context(), testbed.UDP, dst, testbed.Timeout(patience))
		r.must(err)
		// The shorter of connection tracking's own timeouts is over when the entry would be gone.
		r.until("the flow is older than the shorter timeout", func() error {
			return errors.Join(stream.Ping(), olderFlow(r, dst.Port()))
		})
		_ = stream.Close()
	}
}

// olderFlow is nil once a flow to the port is tracked with more time left than connection tracking gives by itself.
func olderFlow(r *row, port uint16) error {
	out, err := r.N1.Command(r.Context(), "sh", "-c",
		fmt.Sprintf("conntrack -L -p udp --orig-port-dst %d 2>/dev/null; conntrack -L -f ipv6 -p udp --orig-port-dst %d 2>/dev/null", port, port)).Output()
	if err != nil {
		return err
	}
	for _, m := range regexp.MustCompile(`(?m)^udp +17 (\d+) `).FindAllStringSubmatch(string(out), -1) {
		if len(m[1]) == 3 && m[1] > "120" {
			return nil
		}
	}
	return fmt.Errorf("no flow with more than 120 s left: %q", out)
}
