package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
)

// Other is an endpoint that the slices name, but that gets no new connections: unready, terminating, or left out by
// policy or topology.
type Other struct {
	ipvs.Dest
	// Serving is set while it answers requests, by its own account.
	Serving bool
}

// others returns the endpoints that are not among the chosen ones; both lists are sorted. Mostly that is none.
func others(eps, chosen []Endpoint) []Other {
	var out []Other
	for _, e := range eps {
		if len(chosen) > 0 && chosen[0].Compare(e) == 0 {
			chosen = chosen[1:]
			continue
		}
		out = append(out, Other{Dest: ipvs.Dest{Addr: e.Addr, Port: e.Port}, Serving: e.Ready || e.Serving})
	}
	return out
}

// other returns what the slices say of an endpoint that gets no new connections; ok is false if they do not name it.
func (f Frontend) other(d ipvs.Dest) (o Other, ok bool) {
	i, ok := slices.BinarySearchFunc(f.Others, d, func(o Other, d ipvs.Dest) int { return o.Compare(d) })
	if !ok {
		return Other{}, false
	}
	return f.Others[i], true
}

// drain plans the end of a real server. Connections of TCP and SCTP go on at weight 0 until they end; the daemon then
// deletes it. A UDP flow has no end and would go to the dead pod for as long as its client sends, so that real server
// goes as soon as the pod does not serve any more, and expire_nodest_conn lets the next datagram go elsewhere.
func (d *differ) drain(base Op, f Frontend, r ipvs.RealServer) {
	o, _ := f.other(r.Dest)
	switch {
	case d.model.Proto(base.Key) == ipvs.UDP && !o.Serving:
		d.ipvs(base, PhaseDrain, ipvs.Op{Verb: ipvs.DeleteReal, Key: base.Key, Real: r})
	case r.Weight != 0:
		r.Weight = 0
		d.ipvs(base, PhaseDrain, ipvs.Op{Verb: ipvs.EditReal, Key: base.Key, Real: r})
	}
}

// Drain is a real server that is there only until its connections end.
type Drain struct {
	ipvs.Dest
	// Gone is set when no slice names the endpoint any more: its pod does not exist, or is no longer the Service's.
	Gone bool
}

// Draining returns the real servers of a virtual server that drain.
func Draining(m *Model, st State, k ipvs.Key) []Drain {
	f, want := m.Frontend(k)
	if !want {
		return nil
	}
	var out []Drain
	for _, r := range st.IPVS.Virtual[k].Real {
		if r.Weight != 0 {
			continue
		}
		_, wanted := slices.BinarySearchFunc(f.Virtual.Real, r.Dest, func(w ipvs.RealServer, d ipvs.Dest) int { return w.Compare(d) })
		if !wanted {
			_, named := f.other(r.Dest)
			out = append(out, Drain{Dest: r.Dest, Gone: !named})
		}
	}
	return out
}

// Lingers reports whether something is left of an address that no frontend has any more: for packets that are on their way to
// it, and for the connections that its last frontends had. Those are reset for a while, where otherwise their clients would
// wait for minutes.
func Lingers(m *Model, st State, p netip.Prefix) bool {
	at := m.place(p)
	return guardLingers(st, p, at) || isGone(m, st, p, at) && (st.has(prefixMember(p, setGone)) || st.holds(releasedElement(p.Addr())))
}

// guardLingers reports whether the guard of an address in a range of ClusterIPs stays, which answers where the range is
// silent. It does not linger on an address that the node has got on an interface, where it would be in the way.
func guardLingers(st State, p netip.Prefix, at place) bool {
	return at.covered && !at.vip && !at.own && st.has(prefixMember(p, setVIP))
}

// isGone reports whether an address is a VIP no more, and what is left of it is to be dealt with. The address itself is
// nobody's, or somebody else's, from the moment on at which its last frontend goes. One that the node has got on an interface
// answers by itself.
func isGone(m *Model, st State, p netip.Prefix, at place) bool {
	if !p.IsSingleIP() || at.vip || at.covered || m.facts.isLocal(p.Addr()) {
		return false
	}
	_, isBound := st.IPVS.Bound[p]
	return isBound || st.has(prefixMember(p, setVIP)) || st.has(prefixMember(p, setGone)) || st.holds(releasedElement(p.Addr()))
}

// isReleased reports whether what is left of the connections through an address is to be reset, of which others may have
// some at an address of which frontends have ports only.
func isReleased(m *Model, st State, p netip.Prefix, at place) bool {
	return isGone(m, st, p, at) && !m.cfg.sharesAddress(p.Addr(), m.facts)
}

// PortLingers reports whether something is left of a frontend whose port alone was local, for packets that are on their way
// to it.
func PortLingers(m *Model, st State, k ipvs.Key) bool {
	return k.Mark == 0 && st.has(keyMember(k, setGonePort)) && isPortGone(m, st, k)
}

// isPortGone reports whether a port that alone was local is so no more. Where the whole address is, there is a guard, or the
// node has it on an interface and answers by itself.
func isPortGone(m *Model, st State, k ipvs.Key) bool {
	if _, isBound := st.IPVS.Ports[k]; !isBound && !st.has(keyMember(k, setGonePort)) {
		return false
	}
	f, want := m.Frontend(k)
	at := m.place(host(k.Addr))
	return !(want && f.OnlyPort) && !at.vip && !at.covered && !m.facts.isLocal(k.Addr)
}

// Forget returns the operations that take away what is left of lingering addresses and ports; those that are wanted again are
// left.
func Forget(m *Model, st State, lingering Touched) Plan {
	d := differ{model: m, state: st, seen: map[netip.Prefix]bool{}, forget: true}
	return d.diff([]Touched{lingering})
}

// Remove returns the operations that take away everything that the state holds.
func Remove(st State, cfg Config) Plan {
	m := NewModel(Facts{}, cfg)
	d := differ{model: m, state: st, seen: map[netip.Prefix]bool{}, forget: true}
	return d.diff([]Touched{m.Everything(st)})
}
