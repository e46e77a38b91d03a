//go:build e2e && linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// apply writes manifests and waits until they are in force on every node whose daemon runs. They go with the test.
func (c *cluster) apply(t *testing.T, ms ...*manifest) {
	t.Helper()
	for _, m := range ms {
		c.put(t, m.Name, m.text())
	}
	c.settle(t)
}

// put writes a file for every node without waiting.
func (c *cluster) put(t *testing.T, name, text string) {
	t.Helper()
	if err := c.write(name, text); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.drop(t, name) })
}

// drop deletes a file of every node, if it is there, without waiting.
func (c *cluster) drop(t *testing.T, name string) {
	t.Helper()
	for _, n := range c.nodes {
		if err := os.Remove(n.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

func (n *node) file(name string) string { return filepath.Join(n.folder, name+".yaml") }

// write puts a file in place for every node, by renaming: no daemon can read half of it.
func (c *cluster) write(name, text string) error {
	for _, n := range c.nodes {
		next := filepath.Join(c.dir, n.Name+"-"+name+".next") // outside the folder that is watched
		if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Rename(next, n.file(name)); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until everything that was written before is in force.
func (c *cluster) settle(t *testing.T) {
	t.Helper()
	if err := c.settleErr(); err != nil {
		t.Fatal(err)
	}
}

// settleErr moves the marker twice. When the first move has reached the kernel, the daemon has read all that was
// written before; it may not have finished applying it. The second move is applied after that, and the virtual
// server of the first move is deleted in the phase in which others are.
func (c *cluster) settleErr() error {
	for range 2 {
		old := c.markerAddr()
		c.marks++
		if err := c.write("zz-marker", serviceText("marker", c.markerAddr())); err != nil {
			return err
		}
		for _, n := range c.nodes {
			if n.daemon == nil {
				continue
			}
			err := await(startLimit, func() error {
				return errors.Join(n.want(testbed.TCP, c.markerAddr(), true), n.want(testbed.TCP, old, false))
			})
			if err != nil {
				return fmt.Errorf("marker %d: %w\n%s", c.marks, err, n.daemon.Tail(25))
			}
		}
	}
	return nil
}

// rest settles and waits for the end of the last sync too. What settles is complete but for the marker: a daemon that is
// killed then may leave the end of its move to the next one. The number of Services that a daemon shows changes when a
// sync is over. Once in a test.
func (c *cluster) rest(t *testing.T) {
	t.Helper()
	const metric = "kubehop_services"
	c.settle(t)
	before := map[*node]float64{}
	for _, n := range c.nodes {
		before[n] = n.metric(t, metric)
	}
	c.put(t, "zz-rest", serviceText("rest", netip.MustParseAddrPort("10.96.255.2:1000")))
	for _, n := range c.nodes {
		eventually(t, startLimit, func() error {
			if got, want := n.metric(t, metric), before[n]+1; got != want {
				return fmt.Errorf("%s shows %v Services, want %v", n, got, want)
			}
			return nil
		})
	}
}

// markerAddr is where the marker answers now.
func (c *cluster) markerAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("10.96.255.1"), uint16(1000+c.marks))
}

// serviceText is a Service with one frontend that sorts behind all others.
func serviceText(name string, at netip.AddrPort) string {
	m := manifest{}
	m.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	m.ObjectMeta = metav1.ObjectMeta{Namespace: "zz", Name: name}
	m.Spec.ClusterIP = at.Addr().String()
	m.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: int32(at.Port())}}
	return m.text()
}

// want reports an error unless the kernel has, or has not, the virtual server.
func (n *node) want(proto testbed.Proto, addr netip.AddrPort, present bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conns, err := n.table.Conns(ctx, keyOf(proto, addr))
	if err == nil && (conns != nil) != present {
		err = fmt.Errorf("virtual server %s %s on %s: present %t, want %t", proto, addr, n, !present, present)
	}
	return err
}
