package informers

import (
	"cmp"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kube-hop/kube-hop/lb"
)

// FromServiceCIDR returns the ranges of a ServiceCIDR. A ServiceCIDR that is being deleted still counts: its ranges
// hold addresses until it is gone.
func FromServiceCIDR(obj *networkingv1.ServiceCIDR) ([]netip.Prefix, []Problem) {
	r := &report{kind: "ServiceCIDR", name: obj.Name}
	return r.prefixes("spec.cidrs", obj.Spec.CIDRs), r.problems
}

// union merges the ranges of all ServiceCIDRs: sorted, each once, nil when there are none.
func union(ranges map[lb.Name][]netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, r := range ranges {
		all = append(all, r...)
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(all)
}
