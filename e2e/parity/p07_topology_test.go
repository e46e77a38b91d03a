//go:build e2e && linux

package parity

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

func TestP07Topology(t *testing.T) {
	r := begin(t, "P07", "Zone and node hints narrow the cluster-wide view only, and follow the node's zone at run time")
	r.Cleanup(func() { r.setZone(r.N1, "") })
	r.setZone(r.N1, "a")
	s, outside := r.service("p07"), r.service("p07-local", etpLocal)
	hinted := []endpoint{ready(r.A1).forZones("a"), ready(r.B1).forZones("b")}
	s.endpoints(hinted...)
	outside.endpoints(ready(r.A1).forZones("b"), ready(r.B1).forZones("a")) // its local view does not care
	r.settle()
	r.expectSoon(r.A2, s.C(), answeredBy(r.A1))
	r.expect(r.A2, s.V(), answeredBy(r.A1))
	r.expect(r.Out, outside.V(), answeredBy(r.A1).seeing(r.Out))

	s.endpoints(hinted[0], ready(r.B1))
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1, r.B1))

	s.endpoints(hinted...)
	r.setZone(r.N1, "c")
	r.settle()
	r.expectSoon(r.A2, s.C(), answeredBy(r.A1, r.B1))
	r.setZone(r.N1, "b")
	r.settle()
	r.expectSoon(r.A2, s.C(), answeredBy(r.B1))

	s.endpoints(ready(r.A1).forZones("b").forNodes("n1"), ready(r.B1).forZones("b").forNodes("n2"))
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1))
	s.endpoints(ready(r.A1).forZones("b"), ready(r.B1).forZones("b").forNodes("n2"))
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1, r.B1))
}

// setZone labels the node with its zone, or with "" takes the label away.
func (r *row) setZone(n *testbed.Host, zone string) {
	r.Helper()
	ctx := context.WithoutCancel(r.Context())
	nodes := r.client.CoreV1().Nodes()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := nodes.Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		delete(node.Labels, corev1.LabelTopologyZone)
		if zone != "" {
			metav1.SetMetaDataLabel(&node.ObjectMeta, corev1.LabelTopologyZone, zone)
		}
		_, err = nodes.Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		r.Errorf("%v", err)
	}
}

// expectSoon is expect for what follows from a change of a Node, which the marker does not announce.
func (r *row) expectSoon(client *testbed.Host, f frontend, want outcome) {
	r.Helper()
	_ = r.soon(func() error { // expect has the last word
		for _, dst := range f.at {
			if err := r.check(client, f.proto, dst, want); err != nil {
				return err
			}
		}
		return nil
	})
	r.expect(client, f, want)
}
