package informers

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/lb"
)

// taintLeaving is put on a Node that the cluster autoscaler is about to remove. Source: kubernetes/autoscaler
// cluster-autoscaler/utils/taints, ToBeDeletedTaint; KEP-3836.
const taintLeaving = "ToBeDeletedByClusterAutoscaler"

// FromNode translates a Node. Addresses and podCIDRs that cannot be parsed are left out.
func FromNode(obj *corev1.Node) lb.Node {
	n := lb.Node{
		Name:    strings.ToLower(obj.Name),
		Zone:    obj.Labels[corev1.LabelTopologyZone],
		Leaving: obj.DeletionTimestamp != nil,
	}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range obj.Status.Addresses {
			if a.Type != kind {
				continue
			}
			if ip, ok := parseAddr(a.Address); ok {
				n.Addresses = append(n.Addresses, ip)
			}
		}
	}
	n.PodCIDRs = podCIDRs(&obj.Spec)
	n.Leaving = n.Leaving || slices.ContainsFunc(obj.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintLeaving })
	return n
}

// podCIDRs falls back to the older field, which a hand-written Node may use alone.
func podCIDRs(spec *corev1.NodeSpec) []netip.Prefix {
	entries := spec.PodCIDRs
	if len(entries) == 0 {
		entries = []string{spec.PodCIDR}
	}
	return new(report).prefixes("", entries)
}
