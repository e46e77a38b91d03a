//go:build e2e && linux

package apitest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

// enough is how many answers each flow must get before a phase counts as survived.
const enough = 25

// testOutage kills the API server, and then one of the daemons, while clients go on: nothing may be lost, and the
// restarted daemon may not touch the kernel before it knows what belongs there. When the API server is back, both
// daemons catch up.
func testOutage(t *testing.T, c *cluster) {
	svc := c.apply(t, newService("outage", corev1.ServiceTypeNodePort))
	t.Cleanup(func() { c.deleteService(t, svc.Name) })
	c.scale(t, svc, c.bed.A1, c.bed.B1)
	internal, external := clusterIPs(t, svc), c.nodePorts(t, svc)
	c.appears(t, append(internal, external...), c.bed.A1, c.bed.B1)

	tr := startTraffic(t, []*testbed.Host{c.bed.A1, c.bed.Out}, append(internal[:2:2], external[:2]...))
	tr.goesOn(t, c, enough, "before the outage")
	c.cp.StopAPIServer()
	tr.goesOn(t, c, enough, "while the API server is down")

	before := c.virtual(t, c.bed.N1)
	if err := c.daemons[c.bed.N1].Kill(); err != nil {
		t.Fatal(err)
	}
	c.startDaemon(t, c.bed.N1)
	c.until(t, "kube-hop on n1 waits for the API server", func() error {
		return expectStatus(t, c.bed.N1, healthURL+"/healthz", http.StatusServiceUnavailable)
	})
	tr.goesOn(t, c, enough, "while kube-hop on n1 waits for the API server")
	compareVirtual(t, before, c.virtual(t, c.bed.N1))

	if err := c.cp.StartAPIServer(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	tr.report(t, "while the API server starts")
	c.until(t, "healthz of n1", func() error { return get200(t.Context(), c.bed.N1, healthURL+"/healthz") })
	c.checkAdopted(t, c.bed.N1)
	c.scale(t, svc, c.bed.A2, c.bed.B2)
	c.follows(t, append(internal, external...), c.bed.A2, c.bed.B2)
	tr.goesOn(t, c, enough, "after the API server came back") // connections to a1 and b1 drain, they are not cut
	tr.stop()
	tr.report(t, "in the end")
}

// expectStatus succeeds if the URL answers with the status, as seen from h.
func expectStatus(t *testing.T, h *testbed.Host, url string, want int) error {
	t.Helper()
	got, err := getStatus(t.Context(), h, url)
	if err == nil && got != want {
		err = fmt.Errorf("GET %s: status %d, want %d", url, got, want)
	}
	return err
}

// virtual returns the node's virtual servers without the real servers that drain, which may end at any time.
func (c *cluster) virtual(t *testing.T, n *testbed.Host) map[ipvs.Key][]ipvs.RealServer {
	t.Helper()
	state, err := c.tables[n].Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[ipvs.Key][]ipvs.RealServer{}
	for k, v := range state.Virtual {
		out[k] = nil
		for _, r := range v.Real {
			if r.Weight != 0 {
				out[k] = append(out[k], r)
			}
		}
	}
	return out
}

// compareVirtual fails the test for each virtual server that is not as it was.
func compareVirtual(t *testing.T, before, after map[ipvs.Key][]ipvs.RealServer) {
	t.Helper()
	if len(before) == 0 || len(before) != len(after) {
		t.Errorf("%d virtual servers before, %d after", len(before), len(after))
	}
	for k, want := range before {
		got, found := after[k]
		if !found || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: there %t, real servers %v, want %v", k, found, got, want)
		}
	}
}

// checkAdopted fails the test if the daemon, when it adopted what the kernel held, changed anything. What drained or
// lingered then may have come to its end since, which counts as operations too.
func (c *cluster) checkAdopted(t *testing.T, n *testbed.Host) {
	t.Helper()
	log, err := os.ReadFile(c.daemons[n].Log())
	if err != nil {
		t.Fatal(err)
	}
	starts := strings.Split(string(log), `"Starting kube-hop"`)
	last := starts[len(starts)-1]
	_, adopted, found := strings.Cut(last, `"Adopted the kernel's state"`)
	if adopted, _, _ = strings.Cut(adopted, "\n"); !found || !strings.Contains(adopted, " operations=0 ") {
		t.Errorf("kube-hop on %s adopted the kernel's state (%t) with%s; want no operations", n, found, adopted)
	}
}
