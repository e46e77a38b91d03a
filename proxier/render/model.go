package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// Model is the frontends of all Services and who owns what they share: a frontend that two Services claim belongs
// to one of them, an address that several frontends use is bound once. Update costs what the Service costs.
//
// It has one owner; it is not safe for concurrent use.
type Model struct {
	cfg      Config
	facts    Facts
	services map[lb.Name][]Frontend
	owner    map[ipvs.Key]*Frontend
	// rivals holds the claims that lost, for the few keys that more than one Service claims.
	rivals map[ipvs.Key][]*Frontend
	vips   map[netip.Addr]vipUse
	marks  marks
	// onePacket counts the frontends with one-packet scheduling.
	onePacket int
	// withoutLocal counts the Services of which a Local policy leaves no endpoint.
	withoutLocal map[LocalPolicy]int
}

// LocalPolicy is a traffic policy Local of one family.
type LocalPolicy struct {
	Family lb.Family
	// External is externalTrafficPolicy, else it is internalTrafficPolicy.
	External bool
}

// String returns external or internal, the label values of kube-proxy's metric.
func (l LocalPolicy) String() string {
	if l.External {
		return "external"
	}
	return "internal"
}

// WithoutLocal returns, for each policy, how many Services have endpoints but none that it allows on this node.
func (m *Model) WithoutLocal() map[LocalPolicy]int { return m.withoutLocal }

// countLocal adds n for each policy of a Service's frontends that leaves no endpoint.
func (m *Model) countLocal(frontends []Frontend, n int) {
	var seen []LocalPolicy
	for i := range frontends {
		f := &frontends[i]
		if p := (LocalPolicy{lb.FamilyOf(f.Key.Addr), f.Kind != ClusterIP}); f.Drop != DropNobody && !slices.Contains(seen, p) {
			seen = append(seen, p)
			m.withoutLocal[p] += n
		}
	}
}

// vipUse counts the claims on an address that is local only because of them, and names a Service that has one, for messages.
type vipUse struct {
	all, clusterIP int
	service        lb.Name
}

// NewModel returns a model without Services.
func NewModel(facts Facts, cfg Config) *Model {
	return &Model{
		cfg: cfg, facts: facts,
		services: map[lb.Name][]Frontend{},
		owner:    map[ipvs.Key]*Frontend{},
		rivals:   map[ipvs.Key][]*Frontend{},
		vips:     map[netip.Addr]vipUse{},
		marks:    newMarks(nil),

		withoutLocal: map[LocalPolicy]int{},
	}
}

// Renew returns a model without Services for other facts, in which views will have the marks that they have now.
func (m *Model) Renew(facts Facts) *Model {
	next := NewModel(facts, m.cfg)
	next.marks = newMarks(m.marks.of)
	return next
}

// SetNodeLabels replaces the labels of the cluster's nodes. The Services whose weights look at them are to be updated.
func (m *Model) SetNodeLabels(labels map[string]map[string]string) { m.facts.NodeLabels = labels }

// Touched names the kernel objects that a change may concern.
type Touched struct {
	// Service is the one that changed; the zero Name when the cause is not one Service.
	Service  lb.Name
	Keys     []ipvs.Key
	Prefixes []netip.Prefix
}

// Update replaces the frontends of a Service (none: the Service is gone) and returns what that touches. Rendering
// the same again touches nothing.
func (m *Model) Update(name lb.Name, s lb.Service, slicesOf []lb.EndpointSlice, exists bool) Touched {
	var next []Frontend
	if exists {
		next = Service(s, slicesOf, m.facts, m.cfg)
	}
	return m.set(name, next)
}

func (m *Model) set(name lb.Name, next []Frontend) Touched {
	old := m.services[name]
	m.countLocal(old, -1)
	m.countLocal(next, +1)
	m.onePacket += onePackets(next) - onePackets(old)
	if len(next) == 0 {
		delete(m.services, name)
	} else {
		m.services[name] = next
	}
	t := Touched{Service: name, Keys: make([]ipvs.Key, 0, len(next))}
	var gone map[ipvs.Key]*Frontend
	if len(old) > 0 {
		gone = make(map[ipvs.Key]*Frontend, len(old))
	}
	for i := range old {
		gone[old[i].Key] = &old[i]
	}
	for i := range next {
		f := &next[i]
		if was := gone[f.Key]; was == nil || !was.equal(*f) {
			t.Keys = append(t.Keys, f.Key)
		}
		m.claim(f, gone[f.Key])
		t.Prefixes = m.use(t.Prefixes, *f, +1)
		delete(gone, f.Key)
	}
	for i := range old {
		if gone[old[i].Key] != nil {
			t.Keys = append(t.Keys, old[i].Key)
			m.release(&old[i])
		}
		t.Prefixes = m.use(t.Prefixes, old[i], -1)
	}
	if len(t.Keys) > 0 {
		t.Keys = append(t.Keys, m.follow(old, next)...)
	}
	return t
}

// use counts a claim on the address of a frontend, and adds the address to the touched ones.
func (m *Model) use(touched []netip.Prefix, f Frontend, n int) []netip.Prefix {
	if !f.VIP {
		return touched
	}
	u := m.vips[f.Key.Addr]
	u.all += n
	if n > 0 {
		u.service = f.Service
	}
	if f.Kind == ClusterIP {
		u.clusterIP += n
	}
	if u.all == 0 {
		delete(m.vips, f.Key.Addr)
	} else {
		m.vips[f.Key.Addr] = u
	}
	if p := host(f.Key.Addr); !slices.Contains(touched, p) {
		touched = append(touched, p)
	}
	return touched
}

// claim enters a frontend in place of was, the same Service's earlier claim to the key, if any.
func (m *Model) claim(f, was *Frontend) {
	if was != nil {
		m.release(was)
	}
	switch current := m.owner[f.Key]; {
	case current == nil:
		m.owner[f.Key] = f
	case f.beats(*current):
		m.owner[f.Key] = f
		m.rivals[f.Key] = append(m.rivals[f.Key], current)
	default:
		m.rivals[f.Key] = append(m.rivals[f.Key], f)
	}
}

// release takes a claim back; the best of the rivals inherits the key.
func (m *Model) release(f *Frontend) {
	rivals := m.rivals[f.Key]
	if m.owner[f.Key] != f {
		rivals = slices.DeleteFunc(rivals, func(r *Frontend) bool { return r == f })
	} else {
		delete(m.owner, f.Key)
		if len(rivals) > 0 {
			best := 0
			for i := range rivals {
				if rivals[i].beats(*rivals[best]) {
					best = i
				}
			}
			m.owner[f.Key] = rivals[best]
			rivals = slices.Delete(rivals, best, best+1)
		}
	}
	if len(rivals) == 0 {
		delete(m.rivals, f.Key)
	} else {
		m.rivals[f.Key] = rivals
	}
}

// Conflict is a frontend that more than one Service claims.
type Conflict struct {
	Key   ipvs.Key
	Owner lb.Name
	Loser lb.Name
}

// Conflicts returns the conflicts at the given keys.
func (m *Model) Conflicts(keys []ipvs.Key) []Conflict {
	var out []Conflict
	for _, k := range keys {
		for _, r := range m.rivals[k] {
			out = append(out, Conflict{Key: k, Owner: m.owner[k].Service, Loser: r.Service})
		}
	}
	return out
}

// Everything returns all that the model wants, together with all that the state holds.
func (m *Model) Everything(st State) Touched {
	keys := map[ipvs.Key]struct{}{}
	prefixes := map[netip.Prefix]struct{}{}
	for k := range m.owner {
		keys[k] = struct{}{}
	}
	for k := range st.IPVS.Virtual {
		keys[k] = struct{}{}
	}
	for k := range st.IPVS.Ports {
		keys[k] = struct{}{}
	}
	for _, p := range m.facts.ServiceCIDRs {
		prefixes[p] = struct{}{}
	}
	for a := range m.vips {
		prefixes[host(a)] = struct{}{}
	}
	for _, a := range m.facts.Local {
		if m.facts.inServiceCIDR(a) {
			prefixes[host(a)] = struct{}{}
		}
	}
	for p := range st.IPVS.Bound {
		prefixes[p] = struct{}{}
	}
	for _, entries := range st.Sets {
		for e := range entries {
			if e.Proto == 0 {
				prefixes[e.Prefix] = struct{}{}
			} else {
				keys[entryKey(e)] = struct{}{}
			}
		}
	}
	for k := range m.marks.views {
		keys[k] = struct{}{}
	}
	for set, elements := range st.NFT {
		for e := range elements {
			if k, ok := keyOf(set, e); ok {
				keys[k] = struct{}{}
			} else {
				prefixes[host(e.Addr)] = struct{}{}
			}
		}
	}
	return Touched{Keys: sortedMapKeys(keys, ipvs.Key.Compare), Prefixes: sortedMapKeys(prefixes, comparePrefix)}
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// Len returns the number of Services that have a frontend.
func (m *Model) Len() int { return len(m.services) }

// Frontend returns the owner's frontend of a key. A mark-based virtual server counts as one.
func (m *Model) Frontend(k ipvs.Key) (Frontend, bool) {
	if k.Mark != 0 {
		f, _, ok := m.view(k)
		return f, ok
	}
	f := m.owner[k]
	if f == nil {
		return Frontend{}, false
	}
	return *f, true
}

// bindings returns the prefixes on which the reachability of a VIP depends: the range that is bound as a whole, if it
// lies in one, and the address itself; the same one twice otherwise.
func (m *Model) bindings(a netip.Addr) [2]netip.Prefix {
	for _, p := range m.facts.ServiceCIDRs {
		if p.Contains(a) {
			return [2]netip.Prefix{p, host(a)}
		}
	}
	return [2]netip.Prefix{host(a), host(a)}
}

// place is what is to be true of an address or a range.
type place struct {
	// bound: it is made local by a route of its own.
	bound bool
	// vip: it is the address of a Service, clusterIP: traffic to it is ClusterIP traffic.
	vip, clusterIP bool
	// covered: it is an address in a range of ClusterIPs, own: which the node has on an interface all the same.
	covered, own bool
}

func (m *Model) place(p netip.Prefix) place {
	if slices.Contains(m.facts.ServiceCIDRs, p) && m.cfg.serves(lb.FamilyOf(p.Addr())) {
		return place{bound: true, clusterIP: true}
	}
	if !p.IsSingleIP() {
		return place{}
	}
	u, covered := m.vips[p.Addr()], m.facts.inServiceCIDR(p.Addr())
	return place{
		bound: u.all > 0 && !covered, vip: u.all > 0, clusterIP: u.clusterIP > 0 && !covered,
		covered: covered, own: covered && m.facts.isLocal(p.Addr()),
	}
}
