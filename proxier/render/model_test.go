package render

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback"
)

// FuzzStepwiseEqualsFull proves the incremental path: after any sequence of changes the state reached operation by
// operation is the one that rendering everything anew gives, and planning again finds nothing to do.
func FuzzStepwiseEqualsFull(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed, uint16(60))
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) {
		c := newCluster(seed)
		step := NewModel(testFacts, testConfig)
		st := NewState()
		run := func(p Plan) {
			for _, op := range p {
				st.Record(op)
				checkSafe(t, st, op)
				checkViews(t, step, st, op)
				checkGone(t, step, st, op)
			}
		}
		run(Diff(step, st, step.Everything(st)))
		services, endpoints := map[lb.Name]lb.Service{}, map[lb.Name][]lb.EndpointSlice{}
		for range steps % 200 {
			n := c.name()
			switch {
			case c.chance(20):
				delete(services, n)
			case c.chance(60):
				endpoints[n] = c.slices(n)
			default:
				services[n] = c.service(n)
			}
			s, ok := services[n]
			run(Diff(step, st, step.Update(n, s, endpoints[n], ok)))
		}
		full := NewModel(testFacts, testConfig)
		for n, s := range services {
			full.Update(n, s, endpoints[n], true)
		}
		all := step.Everything(st)
		run(Forget(step, st, Touched{
			Prefixes: slices.DeleteFunc(all.Prefixes, func(p netip.Prefix) bool { return !Lingers(step, st, p) }),
			Keys:     slices.DeleteFunc(all.Keys, func(k ipvs.Key) bool { return !PortLingers(step, st, k) }),
		}))
		want := Desired(full)
		if d := cmp.Diff(want.Text(), withoutDrains(full, st).Text()); d != "" {
			t.Errorf("stepwise render drifted (-full +stepwise):\n%s", d)
		}
		if p := Diff(step, st, step.Everything(st)); len(p) > 0 {
			t.Errorf("a full diff after all steps still finds:\n%s", p)
		}
	})
}

// checkSafe fails if the state after an operation exposes something: a frontend let through the guard without a
// virtual server behind it, an address local but not guarded, or a virtual server reachable, directly or by way of
// loopback, without its SNAT entry.
func checkSafe(t *testing.T, st State, after Op) {
	t.Helper()
	for set, entries := range st.Sets {
		for e := range entries {
			if set != setName(lb.IPv4, setServed) && set != setName(lb.IPv6, setServed) {
				continue
			}
			k := ipvs.Key{Addr: e.Prefix.Addr(), Port: e.Port, Proto: ipvs.Proto(e.Proto)}
			if _, ok := st.IPVS.Virtual[k]; !ok {
				t.Fatalf("after %q: %s passes the guard without a virtual server", after, k)
			}
			if !st.has(prefixMember(host(k.Addr), setVIP)) {
				t.Fatalf("after %q: %s is served, but its address counts as no Service's and is dropped", after, k)
			}
			if !st.has(keyMember(k, setExternal)) && !st.has(keyMember(k, setExternalLocal)) && !st.holdsClusterIP(k) {
				t.Fatalf("after %q: %s is served without a masquerade entry", after, k)
			}
		}
	}
	for e := range st.Sets[loopback.SetName] {
		k := entryKey(e)
		if _, ok := st.IPVS.Virtual[k]; !ok {
			t.Fatalf("after %q: loopback leads to %s, which has no virtual server", after, k)
		}
		if !st.has(keyMember(k, setExternal)) && !st.has(keyMember(k, setExternalLocal)) {
			t.Fatalf("after %q: loopback leads to %s, which has no masquerade entry", after, k)
		}
	}
	for k, ranges := range st.ranges {
		if len(ranges) > 0 && after.Phase > PhaseGuard && after.Phase < PhaseUnguard && !st.has(keyMember(k, setRanged)) {
			t.Fatalf("after %q: %s has source ranges but is not restricted", after, k)
		}
	}
	for k := range st.IPVS.Ports {
		if !st.has(keyMember(k, setExternal)) && !st.has(keyMember(k, setExternalLocal)) && !st.has(keyMember(k, setHealth)) && after.Phase < PhaseOpen {
			t.Fatalf("after %q: port %s is local without a masquerade entry", after, k)
		}
	}
	for p := range st.IPVS.Bound {
		if !st.has(prefixMember(p, setVIP)) && !st.has(prefixMember(p, setClusterIP)) {
			t.Fatalf("after %q: %s is local but not guarded", after, p)
		}
	}
}

// checkGone fails if an address is released while packets that are on their way to it can reach the host: when the guard has
// gone, the address must have been noted before, and no frontend there may be let through any more.
func checkGone(t *testing.T, m *Model, st State, after Op) {
	t.Helper()
	if after.Set != nil && after.Set.Delete && after.Set.Set == setName(lb.FamilyOf(after.VIP.Addr()), setVIP) {
		for _, set := range []string{setExternal, setExternalLocal} {
			for e := range st.Sets[setName(lb.FamilyOf(after.VIP.Addr()), set)] {
				if e.Prefix == after.VIP && !m.facts.isLocal(e.Prefix.Addr()) {
					t.Fatalf("after %q: what is on its way to %v is let through", after, e)
				}
			}
		}
	}
	if after.IPVS == nil {
		return
	}
	if after.IPVS.Verb == ipvs.UnbindPort && m.facts.isNeighbour(after.Key.Addr) && !st.has(keyMember(after.Key, setGonePort)) {
		t.Fatalf("after %q: packets that are on their way to it are delivered", after)
	}
	if after.IPVS.Verb != ipvs.Unbind || !after.VIP.IsSingleIP() {
		return
	}
	if at := m.place(after.VIP); !at.vip && !at.covered && !m.facts.isLocal(after.VIP.Addr()) && !st.has(prefixMember(after.VIP, setGone)) {
		t.Fatalf("after %q: packets that are on their way to it are delivered", after)
	}
}

// checkViews fails if clients inside the cluster are led to a virtual server that is not there, or not all there when
// the first of them are, or if one is there that is not recorded as ours.
func checkViews(t *testing.T, m *Model, st State, after Op) {
	t.Helper()
	for view, from := range st.inside {
		if _, ok := st.IPVS.Virtual[view]; !ok {
			t.Fatalf("after %q: %d frontends lead to %s, which is not there", after, len(from), view)
		}
	}
	for k := range st.IPVS.Virtual {
		if k.Mark != 0 && !st.RecordsKey(k) {
			t.Fatalf("after %q: %s is not recorded as ours", after, k)
		}
	}
	if after.Phase != PhaseInside {
		return
	}
	want, _ := m.Frontend(after.Key)
	have := map[ipvs.RealServer]bool{}
	for _, r := range st.IPVS.Virtual[after.Key].Real {
		have[r] = true
	}
	for _, r := range want.Virtual.Real {
		if !have[r] {
			t.Fatalf("after %q: clients are led to %s before it has %s", after, after.Key, r.Dest)
		}
	}
}

func (s State) holdsClusterIP(k ipvs.Key) bool {
	for bits := range k.Addr.BitLen() + 1 {
		p, _ := k.Addr.Prefix(bits)
		if s.has(prefixMember(p, setClusterIP)) {
			return true
		}
	}
	return false
}

// withoutDrains leaves out the real servers that only wait for their connections to end.
func withoutDrains(m *Model, st State) State {
	out := NewState()
	out.Sets, out.NFT, out.IPVS.Bound, out.IPVS.Ports = st.Sets, st.NFT, st.IPVS.Bound, st.IPVS.Ports
	for set, elements := range out.NFT {
		if len(elements) == 0 {
			delete(out.NFT, set)
		}
	}
	for set, entries := range out.Sets {
		if len(entries) == 0 {
			delete(out.Sets, set)
		}
	}
	for k, v := range st.IPVS.Virtual {
		drains := Draining(m, st, k)
		v.Real = slices.DeleteFunc(slices.Clone(v.Real), func(r ipvs.RealServer) bool {
			return slices.ContainsFunc(drains, func(d Drain) bool { return d.Dest == r.Dest })
		})
		out.IPVS.Virtual[k] = v
	}
	return out
}
