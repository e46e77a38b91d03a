//go:build e2e && linux

package suite

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestNodeLeaves: a Node that the cluster autoscaler is about to remove answers /healthz with 503, so that load balancers turn
// away, and goes on to serve; /livez stays well, since a restart would not help.
func TestNodeLeaves(t *testing.T) {
	c := shared(t)
	m := newService("leaves", 63, c.A1)
	c.apply(t, m)
	nodes := nodesManifest(c.Nodes())
	t.Cleanup(func() {
		if err := c.write("nodes", nodes); err != nil {
			t.Error(err)
		}
	})
	expect := func(path string, want int) {
		t.Helper()
		eventually(t, startLimit, func() error {
			code, body, err := c.nodes[0].get(healthURL + path)
			if err == nil && code != want {
				err = fmt.Errorf("%s: %d, want %d: %s", path, code, want, body)
			}
			return err
		})
	}
	tainted := strings.Replace(nodes, "  name: n1\nspec: {}", "  name: n1\nspec:\n  taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]", 1)
	if tainted == nodes {
		t.Fatalf("no Node to taint in\n%s", nodes)
	}
	expect("/healthz", http.StatusOK)
	if err := c.write("nodes", tainted); err != nil {
		t.Fatal(err)
	}
	expect("/healthz", http.StatusServiceUnavailable)
	expect("/livez", http.StatusOK)
	if _, err := c.Out.Ask(t.Context(), testbed.TCP, m.frontends(c.N1)[3].addr); err != nil {
		t.Error("the Service of a node that leaves: ", err)
	}
	if err := c.write("nodes", nodes); err != nil {
		t.Fatal(err)
	}
	expect("/healthz", http.StatusOK)
}
