//go:build e2e && linux

package apitest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// testServiceCIDR looks for one local route for each range of the API, none for single ClusterIPs, and follows a
// range that comes and goes.
func testServiceCIDR(t *testing.T, c *cluster) {
	svc := c.apply(t, newService("in-range", corev1.ServiceTypeClusterIP))
	t.Cleanup(func() { c.deleteService(t, svc.Name) })
	c.scale(t, svc, c.bed.A1, c.bed.B1)
	c.appears(t, clusterIPs(t, svc), c.bed.A1, c.bed.B1)
	c.awaitLocal(t, serviceCIDRs...)

	added := netip.MustParsePrefix("10.112.0.0/24")
	ranges := c.client.NetworkingV1().ServiceCIDRs()
	const name = "added"
	if _, err := ranges.Create(t.Context(), &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{added.String()}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.awaitLocal(t, append([]netip.Prefix{added}, serviceCIDRs...)...)
	c.follows(t, clusterIPs(t, svc), c.bed.A1, c.bed.B1)
	if err := ranges.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.awaitLocal(t, serviceCIDRs...)
	c.follows(t, clusterIPs(t, svc), c.bed.A1, c.bed.B1)
}

// awaitLocal waits until the routes of kube-hop in each node's local table are exactly these.
func (c *cluster) awaitLocal(t *testing.T, want ...netip.Prefix) {
	t.Helper()
	slices.SortFunc(want, comparePrefix)
	for _, n := range c.bed.Nodes() {
		c.until(t, "local routes of "+n.Name, func() error {
			got, err := localRoutes(n)
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("%v, want %v", got, want)
			}
			return err
		})
	}
}

// localRoutes returns the destinations of the local table by way of the device kube-ipvs0, but for multicast and
// link-local ones, which every device gets from the kernel.
func localRoutes(n *testbed.Host) (out []netip.Prefix, err error) {
	err = n.Do(func() error {
		link, err := netlink.LinkByName("kube-ipvs0")
		if err != nil {
			return fmt.Errorf("kube-ipvs0 on %s: %w", n, err)
		}
		filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: link.Attrs().Index}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
			if err != nil {
				return fmt.Errorf("local routes of %s: %w", n, err)
			}
			for _, r := range routes {
				p, err := netip.ParsePrefix(r.Dst.String())
				if err != nil {
					return fmt.Errorf("local route of %s: %w", n, err)
				}
				if a := p.Addr(); !a.IsMulticast() && !a.IsLinkLocalUnicast() {
					out = append(out, p)
				}
			}
		}
		return nil
	})
	slices.SortFunc(out, comparePrefix)
	return out, err
}

func comparePrefix(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }
