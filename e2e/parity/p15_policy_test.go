//go:build e2e && linux

package parity

import (
	"context"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP15NetworkPolicy: a packet through a ClusterIP passes the filter chains with the pods' own addresses, and no
// rule of the subject accepts it before another program's rules.
func TestP15NetworkPolicy(t *testing.T) {
	r := begin(t, "P15", "NetworkPolicy engines see pod to pod")
	other, err := r.AddPod(context.WithoutCancel(r.Context()), r.N1, "p15")
	r.must(err)
	s := r.service("p15", clusterIPOnly)
	s.endpoints(pods(r.A2, r.B1)...)
	r.settle()
	r.expect(r.A1, s.C(), answeredBy(r.A2, r.B1).seeing(r.A1))
	for _, server := range []*testbed.Host{r.A2, r.B1} {
		for _, chain := range []string{"FORWARD", "OUTPUT"} {
			r.rule(r.N1, "iptables", "filter", "-I", chain, "-s", r.A1.Addr4.String(), "-d", server.Addr4.String(), "-j", "DROP")
			r.rule(r.N1, "ip6tables", "filter", "-I", chain, "-s", r.A1.Addr6.String(), "-d", server.Addr6.String(), "-j", "DROP")
		}
	}
	r.expect(r.A1, s.C(), dropped())
	r.expect(other, s.C(), answeredBy(r.A2, r.B1).seeing(other))
}

// rule puts a rule of another program into a built-in chain until the end of the row: with -I at its top, with -A at
// its end.
func (r *row) rule(n *testbed.Host, program, table, verb, chain string, rule ...string) {
	r.Helper()
	ctx := context.WithoutCancel(r.Context())
	run := func(verb string) {
		args := append([]string{"-w", "10", "-t", table, verb, chain}, rule...)
		if out, err := n.Command(ctx, program, args...).CombinedOutput(); err != nil {
			r.Errorf("%s %v: %v: %s", program, args, err, out)
		}
	}
	run(verb)
	r.Cleanup(func() { run("-D") })
}
