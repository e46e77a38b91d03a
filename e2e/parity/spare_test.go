//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"strings"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// spare is a node that one row has for itself, for what would disturb others.
type spare struct {
	*testbed.Host

	pod *testbed.Host // its only one, which serves nothing
	row *row
}

// spare adds a node to the bed and to the API server, without a proxy on it.
func (r *row) spare() *spare {
	r.Helper()
	r.cluster.spares++
	name, pod := spareNames(r.cluster.spares)
	ctx := context.WithoutCancel(r.Context())
	n, err := r.AddNode(ctx, testbed.NodeSpec{Name: name, Pods: []string{pod}})
	r.must(err)
	r.must(n.Do(noRateLimit))
	_, err = controlplane.ApplyNode(ctx, r.client, controlplane.NewNode(n.Name, n.Addr4, n.Addr6))
	r.must(err)
	r.Cleanup(func() {
		if err := controlplane.DeleteNode(ctx, r.client, n.Name); err != nil {
			r.Errorf("%v", err)
		}
	})
	return &spare{Host: n, pod: r.Host(pod), row: r}
}

// spareNames returns the names of the i-th spare node and its pod, counted from 1.
func spareNames(i int) (node, pod string) { return fmt.Sprintf("n%d", 3+i), fmt.Sprintf("d%d", i) }

// start runs the subject on the node with further flags, until stop or the end of the row; it does not wait for it.
func (s *spare) start(flags ...string) {
	s.row.Helper()
	s.row.extra[s.Host] = flags
	s.row.must(s.row.startDaemon(s.row.Context(), s.Host))
	s.row.Cleanup(s.kill)
}

// stop ends the subject as a DaemonSet would.
func (s *spare) stop() {
	s.row.Helper()
	s.row.must(s.row.stopDaemon(context.WithoutCancel(s.row.Context()), s.Host))
}

// kill ends the subject as a crash would, if it runs.
func (s *spare) kill() {
	p := s.row.daemons[s.Host]
	if p == nil {
		return
	}
	delete(s.row.daemons, s.Host)
	if err := p.Kill(); err != nil {
		s.row.Errorf("%v", err)
	}
}

// sh runs a shell script in the node's namespace and returns what it prints.
func (s *spare) sh(script string) (string, error) {
	out, err := s.Command(context.WithoutCancel(s.row.Context()), "bash", "-ec", script).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s on %s: %w: %s", script, s.Name, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// do is sh that must succeed.
func (s *spare) do(script string) string {
	s.row.Helper()
	out, err := s.sh(script)
	s.row.must(err)
	return out
}

// cleanup runs a proxy's cleanup on the node.
func (s *spare) cleanup(of subject) error {
	out, err := s.sh(of.cleanup())
	if err != nil {
		s.row.Log(out)
	}
	return err
}
