package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// Chunks splits what is touched, so that a plan for all of a large cluster need not be in memory at once and the first
// Services are served long before the last: about n frontends at a time, those of the given Service first. Addresses
// are the last part: when it is planned, the frontends that were on those that go must be gone.
func (m *Model) Chunks(t Touched, n int, first lb.Name) []Touched {
	var out []Touched
	add := func(keys []ipvs.Key) {
		if len(keys) > 0 {
			out = append(out, Touched{Service: t.Service, Keys: keys})
		}
	}
	var early []ipvs.Key
	rest := t.Keys
	if frontends := m.services[first]; len(frontends) > 0 && len(t.Keys) > n {
		mine := func(k ipvs.Key) bool {
			return slices.ContainsFunc(frontends, func(f Frontend) bool { return f.Key == k })
		}
		rest = make([]ipvs.Key, 0, len(t.Keys))
		for _, k := range t.Keys {
			if mine(k) {
				early = append(early, k)
			} else {
				rest = append(rest, k)
			}
		}
	}
	add(early)
	for len(rest) > 0 {
		end := chunkEnd(rest, n)
		add(rest[:end])
		rest = rest[end:]
	}
	return append(out, Touched{Service: t.Service, Prefixes: t.Prefixes})
}

// chunkEnd returns where the first chunk of keys ends: after n, or up to twice as many if that keeps the frontends of an
// address together, since those of a VIP share its guard.
func chunkEnd(keys []ipvs.Key, n int) int {
	if len(keys) <= n {
		return len(keys)
	}
	for end := n; end < min(len(keys), 2*n); end++ {
		if keys[end].Addr != keys[end-1].Addr {
			return end
		}
	}
	return n
}

// Independent reports whether the later of two plans, made when the earlier one had not run, is what would be planned
// after it. Both are for parts without a common frontend. What parts may share, addresses and views, both plans have
// operations on if any is lacking.
func Independent(earlier, later Plan) bool {
	addresses, views := map[netip.Prefix]struct{}{}, map[ipvs.Key]struct{}{}
	for _, o := range earlier {
		switch {
		case o.VIP.IsValid():
			addresses[o.VIP] = struct{}{}
		case o.Key.Mark != 0:
			views[o.Key] = struct{}{}
		}
	}
	return !slices.ContainsFunc(later, func(o Op) bool {
		_, address := addresses[o.VIP]
		_, view := views[o.Key]
		return address || view
	})
}
