//go:build e2e && linux

package parity

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP24IdleTCP: an idle connection lives as long as connection tracking remembers it. The kernel is asked how long that
// is, since to wait for it takes longer than anybody has.
func TestP24IdleTCP(t *testing.T) {
	title := "By default IPVS keeps an idle TCP connection as long as connection tracking does; "
	if testing.Short() {
		title += "--ipvs-tcp-timeout ends one that is idle for longer (not the 16 minutes of a long run)"
	} else {
		title += "one that was idle for 16 minutes goes on, --ipvs-tcp-timeout ends one that is idle for longer"
	}
	r := begin(t, "P24", title)
	s := r.service("p24")
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	idleSince := time.Now()
	var held []*testbed.Stream
	for _, f := range []frontend{s.V(), s.N(r.N1)} {
		held = append(held, r.hold(r.Out, f)...)
	}
	held = append(held, r.hold(r.A2, s.C())...)
	if r.subject.ipvs {
		r.wantSameTimeout()
		r.idleTooLong(s)
	}
	if !testing.Short() {
		r.idle(16*time.Minute - time.Since(idleSince))
	}
	r.goOn(fmt.Sprintf("a connection that was idle for %.0f s", time.Since(idleSince).Seconds()), held)
}

// wantSameTimeout compares IPVS's timeout of established connections with that of connection tracking.
func (r *row) wantSameTimeout() {
	r.Helper()
	tracked, err := r.readOn(r.N1, "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established")
	r.must(err)
	out, err := r.N1.Command(r.Context(), "ipvsadm", "-L", "--timeout").Output()
	r.must(err)
	if ipvs := regexp.MustCompile(`\d+`).FindString(string(out)); ipvs != tracked {
		r.Errorf("IPVS forgets an idle connection after %s s, connection tracking after %s s", ipvs, tracked)
	}
}

// idleTooLong: the client of a connection that was idle for longer than the flag says learns that it has ended.
func (r *row) idleTooLong(s *service) {
	r.Helper()
	r.keepTimeouts(r.N2)
	r.restart(r.N2, "--ipvs-tcp-timeout=20s")
	held := r.hold(r.B2, s.C())
	r.idle(30 * time.Second)
	for _, stream := range held {
		if err := stream.Ping(); err == nil || errors.Is(err, testbed.ErrTimeout) {
			r.Errorf("--ipvs-tcp-timeout=20s, a connection that was idle for 30 s: %v; want an end", err)
		}
	}
}

// trackedUDP are connection tracking's timeouts of UDP flows without and with answers.
var trackedUDP = []string{"udp_timeout", "udp_timeout_stream"}

// keepTimeouts puts the node's timeouts of IPVS and of UDP's connection tracking back at the end of the row: a proxy
// that is not told any leaves alone what it finds.
func (r *row) keepTimeouts(n *testbed.Host) {
	r.Helper()
	out, err := n.Command(r.Context(), "ipvsadm", "-L", "--timeout").Output()
	r.must(err)
	script := "ipvsadm --set " + regexp.MustCompile(`\d+ \d+ \d+`).FindString(string(out))
	for _, name := range trackedUDP {
		value, err := r.readOn(n, "/proc/sys/net/netfilter/nf_conntrack_"+name)
		r.must(err)
		script += fmt.Sprintf("; sysctl -qw net.netfilter.nf_conntrack_%s=%s", name, value)
	}
	r.Cleanup(func() { r.run(n, "sh", "-ec", script) })
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
	timeout, idle := 200, 190
	if testing.Short() {
		timeout, idle = 40, 30
	}
	r := begin(t, "P30", fmt.Sprintf("--ipvs-udp-timeout=%ds: every flow that was idle for %d s goes on with its pod, masqueraded or not", timeout, idle))
	if !r.subject.ipvs {
		r.notApplicable("has no table of connections beside connection tracking")
	}
	r.keepTimeouts(r.N1)
	if testing.Short() { // the kernel's own timeouts, scaled as the flag is
		for i, name := range trackedUDP {
			r.run(r.N1, "sysctl", "-qw", fmt.Sprintf("net.netfilter.nf_conntrack_%s=%d", name, []int{6, 24}[i]))
		}
	}
	r.restart(r.N1, fmt.Sprintf("--ipvs-udp-timeout=%ds", timeout))
	s := r.service("p30", over(testbed.UDP))
	s.endpoints(pods(r.A1, r.B1, r.B2)...)
	r.settle()
	const flows = 10 // at each address: that all of them find their way back by chance is out of the question
	held := map[string][]*testbed.Stream{}
	for range flows {
		held["a2 to C"] = append(held["a2 to C"], r.hold(r.A2, s.C())...)
		held["out to V"] = append(held["out to V"], r.hold(r.Out, s.V())...)
		held["out to n1:N"] = append(held["out to n1:N"], r.hold(r.Out, s.N(r.N1))...)
	}
	r.idle(time.Duration(idle) * time.Second)
	for what, streams := range held {
		r.goOn(fmt.Sprintf("UDP flow from %s that was idle for %d s", what, idle), streams)
	}
}
