package render

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
)

// KindBound is the kind of difference of bound prefixes.
const KindBound = "vip"

// Difference is what of one kind of object is not as it was left.
type Difference struct {
	// Kind is ipvs, vip, set or nftables.
	Kind string
	// Lines name one object each.
	Lines []string
}

// Drift compares the state as it was left with the state as it was found.
func Drift(left, found State) []Difference {
	return []Difference{
		{Kind: "ipvs", Lines: virtualDrift(left.IPVS.Virtual, found.IPVS.Virtual)},
		{Kind: KindBound, Lines: slices.Concat(BoundDrift(left.IPVS.Bound, found.IPVS.Bound), BoundDrift(left.IPVS.Ports, found.IPVS.Ports))},
		{Kind: "set", Lines: setDrift(left, found)},
		{Kind: "nftables", Lines: nftDrift(left, found)},
	}
}

func virtualDrift(left, found map[ipvs.Key]ipvs.VirtualServer) []string {
	var out []string
	for k, v := range left {
		f, ok := found[k]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("virtual server %s is missing", k))
		case f.Config != v.Config:
			out = append(out, fmt.Sprintf("virtual server %s is %s, was %s", k, f.Config, v.Config))
		case !f.Equal(v):
			out = append(out, fmt.Sprintf("virtual server %s has other real servers or weights", k))
		}
	}
	for k := range found {
		if _, ok := left[k]; !ok {
			out = append(out, fmt.Sprintf("virtual server %s was added", k))
		}
	}
	return out
}

// BoundDrift names the bound prefixes or ports that are not as they were left, a line each.
func BoundDrift[K comparable](left, found map[K]netip.Addr) []string {
	var out []string
	for k, source := range left {
		if f, ok := found[k]; !ok || f != source {
			out = append(out, fmt.Sprintf("local route %v is missing or has another source", k))
		}
	}
	for k := range found {
		if _, ok := left[k]; !ok {
			out = append(out, fmt.Sprintf("local route %v was added", k))
		}
	}
	return out
}

func setDrift(left, found State) []string {
	var out []string
	for set, entries := range left.Sets {
		for e := range entries {
			if m := (member{set, e}); !found.has(m) {
				out = append(out, fmt.Sprintf("set %s lacks %s", set, e))
			}
		}
	}
	for set, entries := range found.Sets {
		for e := range entries {
			if m := (member{set, e}); !left.has(m) {
				out = append(out, fmt.Sprintf("set %s has %s, which was added", set, e))
			}
		}
	}
	return out
}

func nftDrift(left, found State) []string {
	var out []string
	for set, elements := range left.NFT {
		for k, mark := range elements {
			if e := (element{set, k, mark}); !found.holds(e) {
				out = append(out, "lacks: "+e.op(false).String())
			}
		}
	}
	for set, elements := range found.NFT {
		for k, mark := range elements {
			if _, ok := left.NFT[set][k]; !ok {
				out = append(out, "was added: "+element{set, k, mark}.op(false).String())
			}
		}
	}
	return out
}
