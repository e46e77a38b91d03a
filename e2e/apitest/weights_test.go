//go:build e2e && linux

package apitest

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

// testNodeLabels: weights by a label of the endpoints' nodes follow the Nodes.
func testNodeLabels(t *testing.T, c *cluster) {
	svc := newService("by-label", corev1.ServiceTypeClusterIP)
	svc.Annotations = map[string]string{
		"kube-hop.io/ipvs-scheduler": "wrr", "kube-hop.io/weights": "node-label/disk=ssd:5, default:2",
	}
	svc = c.apply(t, svc)
	t.Cleanup(func() { c.deleteService(t, svc.Name) })
	c.scale(t, svc, c.bed.A1, c.bed.B1)
	label := func(disk string) {
		t.Helper()
		nodes := c.client.CoreV1().Nodes()
		node, err := nodes.Get(t.Context(), c.bed.N2.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		metav1.SetMetaDataLabel(&node.ObjectMeta, "disk", disk)
		if _, err := nodes.Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		disk string
		b1   int
	}{{"ssd", 5}, {"tape", 2}, {"ssd", 5}} {
		label(step.disk)
		for _, f := range clusterIPs(t, svc) {
			c.awaitWeights(t, c.bed.N1, f, map[netip.Addr]int{c.bed.A1.Addr(f.Addr()): 2, c.bed.B1.Addr(f.Addr()): step.b1})
		}
	}
}

// awaitWeights waits until the real servers of a virtual server have the weights.
func (c *cluster) awaitWeights(t *testing.T, n *testbed.Host, f netip.AddrPort, want map[netip.Addr]int) {
	t.Helper()
	c.until(t, fmt.Sprintf("weights of %s on %s", f, n), func() error {
		state, err := c.tables[n].Dump(t.Context())
		if err != nil {
			return err
		}
		got := map[netip.Addr]int{}
		for _, r := range state.Virtual[ipvs.Key{Addr: f.Addr(), Port: f.Port(), Proto: ipvs.TCP}].Real {
			got[r.Addr] = r.Weight
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}
