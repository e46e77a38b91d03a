package render

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// View is what clients inside the cluster see at the external frontends of a service port with policy Local: a
// virtual server of its own, found by packet mark, that all of these frontends share.
type View struct {
	ID      ViewID
	Virtual ipvs.VirtualServer
	// Others are as those of a Frontend.
	Others []Other
}

// ViewID names the service port that a view belongs to.
type ViewID struct {
	Service lb.Name
	Port    string
	Proto   lb.Proto
	Family  lb.Family
}

// Compare orders by Service, port, protocol and family.
func (v ViewID) Compare(o ViewID) int {
	return cmp.Or(v.Service.Compare(o.Service), cmp.Compare(v.Port, o.Port), cmp.Compare(v.Proto, o.Proto), cmp.Compare(v.Family, o.Family))
}

// equal reports whether both views are the same; either may be nil.
func (v *View) equal(o *View) bool {
	if v == nil || o == nil {
		return v == o
	}
	return v.ID == o.ID && slices.Equal(v.Others, o.Others) && v.Virtual.Equal(o.Virtual)
}

// The marks that views get: markBase and markBits bits that are chosen. Other software must not use them.
const (
	markBase = 0x6b800000
	markBits = 20
)

// marks gives views their packet marks. A mark follows from the view's name, so that a restart finds the same one. Of
// two views that want the same one the later gets the next; to find that again too, hints hold what the kernel has.
type marks struct {
	of    map[ViewID]ipvs.Key
	views map[ipvs.Key]ViewID
	hints map[ViewID]ipvs.Key
	// hinted are the marks in hints, which nobody else gets.
	hinted map[ipvs.Key]ViewID
}

func newMarks(hints map[ViewID]ipvs.Key) marks {
	m := marks{of: map[ViewID]ipvs.Key{}, views: map[ipvs.Key]ViewID{}, hints: hints, hinted: map[ipvs.Key]ViewID{}}
	for id, k := range hints {
		m.hinted[k] = id
	}
	return m
}

// claim returns the key of a view's virtual server. False if all marks are taken.
func (m marks) claim(id ViewID) (ipvs.Key, bool) {
	if k, ok := m.of[id]; ok {
		return k, true
	}
	k, ok := m.hints[id]
	for i := uint32(0); !ok && i < 1<<markBits; i++ {
		k = markKey(id.Family == lb.IPv6, markBase|(id.hash()+i)%(1<<markBits))
		_, taken := m.views[k]
		owner, hinted := m.hinted[k]
		ok = !taken && (!hinted || owner == id)
	}
	if ok {
		m.of[id], m.views[k] = k, id
	}
	return k, ok
}

func (m marks) release(id ViewID) {
	delete(m.views, m.of[id])
	delete(m.of, id)
}

// hash leaves the family out, so that both families of a port have one mark.
func (v ViewID) hash() uint32 {
	h := fnv.New32a()
	for _, s := range []string{v.Service.Namespace, v.Service.Name, v.Port} {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	_, _ = h.Write([]byte{byte(v.Proto)})
	return h.Sum32()
}

// Adopt gives the views the marks that they have in the kernel's state, so that a restart changes nothing.
func (m *Model) Adopt(st State) {
	hints := map[ViewID]ipvs.Key{}
	taken := map[ipvs.Key]bool{}
	for _, view := range sortedMapKeys(st.inside, ipvs.Key.Compare) {
		for _, k := range sortedMapKeys(st.inside[view], ipvs.Key.Compare) {
			f := m.owner[k]
			if f == nil || f.Inside == nil || taken[view] {
				continue
			}
			if _, has := hints[f.Inside.ID]; !has {
				hints[f.Inside.ID], taken[view] = view, true
			}
		}
	}
	ids := sortedMapKeys(m.marks.of, ViewID.Compare)
	m.marks = newMarks(hints)
	for _, id := range ids {
		m.marks.claim(id)
	}
}

// follow claims and releases the marks of a Service's views, and returns those that a change of its frontends touches.
func (m *Model) follow(old, next []Frontend) []ipvs.Key {
	var touched []ipvs.Key
	touch := func(k ipvs.Key) {
		if !slices.Contains(touched, k) {
			touched = append(touched, k)
		}
	}
	var wanted map[ViewID]bool
	for _, f := range next {
		if f.Inside == nil || wanted[f.Inside.ID] {
			continue
		}
		if wanted == nil {
			wanted = map[ViewID]bool{}
		}
		wanted[f.Inside.ID] = true
		if k, ok := m.marks.claim(f.Inside.ID); ok {
			touch(k)
		}
	}
	for _, f := range old {
		if f.Inside == nil || wanted[f.Inside.ID] {
			continue
		}
		if k, ok := m.marks.of[f.Inside.ID]; ok {
			touch(k)
			m.marks.release(f.Inside.ID)
		}
	}
	return touched
}

// view returns the mark-based virtual server of a key as a frontend, with the frontends that lead there.
func (m *Model) view(k ipvs.Key) (f Frontend, from []ipvs.Key, ok bool) {
	id, ok := m.marks.views[k]
	if !ok {
		return Frontend{}, nil, false
	}
	service := m.services[id.Service]
	for i := range service {
		o := &service[i]
		if o.Inside == nil || o.Inside.ID != id || m.owner[o.Key] != o {
			continue
		}
		from = append(from, o.Key)
		f = Frontend{Key: k, Kind: o.Kind, Service: o.Service, PortName: o.PortName, Created: o.Created, Virtual: o.Inside.Virtual, Others: o.Inside.Others}
	}
	return f, from, len(from) > 0
}

// viewOf returns the key of the view that inside clients of a frontend are led to.
func (m *Model) viewOf(k ipvs.Key) (ipvs.Key, bool) {
	f := m.owner[k]
	if f == nil || f.Inside == nil {
		return ipvs.Key{}, false
	}
	view, ok := m.marks.of[f.Inside.ID]
	return view, ok
}

// Proto returns the protocol of a virtual server, also of a mark-based one, whose key does not tell.
func (m *Model) Proto(k ipvs.Key) ipvs.Proto {
	if k.Mark != 0 {
		return ipvs.Proto(m.marks.views[k].Proto)
	}
	return k.Proto
}

// view plans a mark-based virtual server and the elements that lead to it. The virtual server is complete before the
// first of them, and goes after the last.
func (d *differ) view(k ipvs.Key) {
	if d.views[k] {
		return
	}
	if d.views == nil {
		d.views = map[ipvs.Key]bool{}
	}
	d.views[k] = true
	f, from, want := d.model.view(k)
	base := Op{Service: d.service, Key: k}
	if want {
		base.Service = f.Service
	}
	d.element(base, markElement(k), want, PhaseGuard, PhaseUnguard)
	for _, key := range from {
		d.element(base, insideElement(key, k), true, PhaseInside, PhaseClose)
	}
	for _, key := range sortedMapKeys(d.state.inside[k], ipvs.Key.Compare) {
		switch other, moved := d.model.viewOf(key); {
		case moved && other != k:
			d.view(other) // which replaces the mark
		case !moved:
			d.element(base, insideElement(key, k), false, PhaseInside, PhaseClose)
		}
	}
	have, exists := d.state.IPVS.Virtual[k]
	switch {
	case want:
		d.virtual(base, f, have, exists)
	case exists:
		d.ipvs(base, PhaseDrain, ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
	}
}
