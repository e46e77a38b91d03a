package render

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/nftables"
)

// Phase is a step of the order in which operations run.
type Phase uint8

// The phases, in order. Guards and masquerade entries come before the traffic that needs them, virtual servers
// before the addresses that lead to them, additions before removals; removal runs in the opposite order. Being
// killed between any two phases leaves traffic that is refused or served as before, never exposed.
const (
	// PhaseAllow adds the sources that may use restricted frontends.
	PhaseAllow Phase = iota + 1
	// PhaseGuard adds masquerade entries, restricts frontends and guards addresses.
	PhaseGuard
	// PhaseServe adds and edits virtual servers, and adds real servers or gives them their weight back.
	PhaseServe
	// PhaseInside leads clients inside the cluster to virtual servers of their own.
	PhaseInside
	// PhaseBind makes addresses local.
	PhaseBind
	// PhaseOpen lets frontends through the guard.
	PhaseOpen
	// PhaseClose makes the guard reject frontends that go, and leads nobody any more to a virtual server that goes.
	PhaseClose
	// PhaseUnbind makes addresses foreign again.
	PhaseUnbind
	// PhaseDrain drains or deletes real servers, and deletes virtual servers.
	PhaseDrain
	// PhaseUnguard deletes masquerade entries and restrictions.
	PhaseUnguard
	// PhaseLast deletes the sources that restricted frontends are no longer for, and the guards of addresses: an entry of a
	// frontend without its guard would let through what is still on its way to it.
	PhaseLast
)

// Op is one operation on the kernel: on IPVS, on an ipset or on a set of nf_tables.
type Op struct {
	Phase Phase
	// Service is the one that the operation is for; the zero Name when no single one is.
	Service lb.Name
	// Key is the frontend concerned, or VIP the address; the other is zero.
	Key ipvs.Key
	VIP netip.Prefix

	IPVS *ipvs.Op
	Set  *iptables.SetOp
	NFT  *nftables.Op
}

// String prints the operation as it will run.
func (o Op) String() string {
	switch {
	case o.Set != nil:
		return "set " + o.Set.String()
	case o.NFT != nil:
		return "nft " + o.NFT.String()
	}
	return o.IPVS.String()
}

// Blocks reports whether later operations on the same frontend or address must not run if this one failed. One
// real server that cannot be added or removed holds up nothing; nor does an element of nf_tables, without which a
// frontend still serves, except the record that a virtual server is ours.
func (o Op) Blocks() bool {
	if o.NFT != nil {
		return o.NFT.Set.Name == setMarks
	}
	if o.IPVS == nil {
		return o.Set.Set != loopback.SetName // without it loopback refuses, or leads to what refuses
	}
	switch o.IPVS.Verb {
	case ipvs.AddReal, ipvs.EditReal, ipvs.DeleteReal, ipvs.EditVirtual: // after a failed edit all is as it was
		return false
	default:
		return true
	}
}

// Removes reports whether the operation takes something away.
func (o Op) Removes() bool {
	switch {
	case o.NFT != nil:
		return o.NFT.Delete
	case o.Set != nil:
		return o.Set.Delete
	}
	switch o.IPVS.Verb {
	case ipvs.Unbind, ipvs.UnbindPort, ipvs.DeleteVirtual, ipvs.DeleteReal:
		return true
	default:
		return false
	}
}

// Plan is operations in the order in which they run.
type Plan []Op

// String prints one operation a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, o := range p {
		b.WriteString(o.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Diff returns the operations that turn what the state holds of the touched objects into what the model wants.
func Diff(m *Model, st State, touched ...Touched) Plan {
	d := differ{model: m, state: st, seen: map[netip.Prefix]bool{}}
	return d.diff(touched)
}

func (d *differ) diff(touched []Touched) Plan {
	d.reserve(touched)
	for _, t := range touched {
		d.service = t.Service
		for _, p := range t.Prefixes {
			d.prefix(p)
		}
		for _, k := range t.Keys {
			d.key(k)
		}
	}
	return append(d.ordered(), d.exchanges...)
}

// room is where a large plan is put together: its middle is for the operations that serve, and what is planned first and
// last is moved in before and behind them. Growing to that size, and joining the phases then, would copy all of it twice.
type room struct {
	ops    Plan
	before int // how many operations have place before the middle
}

// reserve makes room for what a first sync plans most of: a real server for each endpoint. For the other phases there is
// as much as almost all Services need.
func (d *differ) reserve(touched []Touched) {
	const few = 16 // what a change of one Service touches
	n, keys := 0, 0
	for _, t := range touched {
		if len(t.Keys) <= few {
			continue
		}
		keys += len(t.Keys)
		for _, k := range t.Keys {
			if f, ok := d.model.Frontend(k); ok {
				n += max(0, 1+len(f.Virtual.Real)-len(d.state.IPVS.Virtual[k].Real))
			}
		}
	}
	if n > 0 {
		d.room = room{ops: make(Plan, 3*keys+n+2*keys), before: 3 * keys}
		d.phases[PhaseServe] = d.room.ops[d.room.before:d.room.before]
	}
}

// ordered returns the operations of all phases in order, in the room that is reserved if it is enough.
func (d *differ) ordered() Plan {
	first, serve, last := d.phases[:PhaseServe], d.phases[PhaseServe], d.phases[PhaseServe+1:]
	begin, end := d.room.before-count(first), d.room.before+len(serve)
	if begin < 0 || end > len(d.room.ops) { // those that serve have moved out of it
		return slices.Concat(d.phases[:]...)
	}
	at := d.room.ops[begin:begin]
	for _, p := range first {
		at = append(at, p...)
	}
	at = d.room.ops[begin:end]
	for _, p := range last {
		at = append(at, p...)
	}
	return at
}

func count(plans []Plan) int {
	n := 0
	for _, p := range plans {
		n += len(p)
	}
	return n
}

// differ collects the operations of one Diff.
type differ struct {
	model   *Model
	state   State
	service lb.Name
	seen    map[netip.Prefix]bool
	views   map[ipvs.Key]bool
	// forget takes away at once what is left of addresses that are not wanted, without letting them linger.
	forget bool
	phases [PhaseLast + 1]Plan
	room   room
	// exchanges comes last: three phases of its own for each scheduler that is exchanged.
	exchanges Plan
	// onIPVS, onSets and onNFT are where the next operations are put, many to an allocation.
	onIPVS []ipvs.Op
	onSets []iptables.SetOp
	onNFT  []nftables.Op
}

// put appends a value and returns where it is. What was put stays there: a full slice is left and a larger one begun.
func put[T any](s *[]T, v T) *T {
	const most = 256
	if len(*s) == cap(*s) {
		*s = make([]T, 0, min(max(1, 2*cap(*s)), most))
	}
	*s = append(*s, v)
	return &(*s)[len(*s)-1]
}

// member adds or deletes a set entry if the state differs from what is wanted.
func (d *differ) member(o Op, m member, want bool, add, remove Phase) {
	if d.state.has(m) == want {
		return
	}
	o.Set = put(&d.onSets, m.op(!want))
	if want {
		d.plan(o, add)
	} else {
		d.plan(o, remove)
	}
}

// element adds or deletes an element of nf_tables if the state differs from what is wanted, where there is nf_tables.
func (d *differ) element(o Op, e element, want bool, add, remove Phase) {
	if d.state.holds(e) == want || !d.model.cfg.NFTables {
		return
	}
	o.NFT = put(&d.onNFT, e.op(!want))
	if want {
		d.plan(o, add)
	} else {
		d.plan(o, remove)
	}
}

// prefix plans the guard and the binding of an address or range.
func (d *differ) prefix(p netip.Prefix) {
	if d.seen[p] {
		return
	}
	d.seen[p] = true
	want := d.model.place(p)
	lingers := !d.forget && guardLingers(d.state, p, want)
	base := Op{Service: d.service, VIP: p}
	if base.Service == (lb.Name{}) {
		base.Service = d.model.vips[p.Addr()].service
	}
	d.member(base, prefixMember(p, setOwn), want.own, PhaseAllow, PhaseLast)
	d.member(base, prefixMember(p, setVIP), want.vip || lingers, PhaseGuard, PhaseLast)
	d.member(base, prefixMember(p, setClusterIP), want.clusterIP, PhaseGuard, PhaseUnguard)

	have, isBound := d.state.IPVS.Bound[p]
	if p.IsSingleIP() && p.Addr().Is4() {
		d.element(base, arpElement(p.Addr()), want.bound, PhaseGuard, PhaseUnguard)
	}
	if p.IsSingleIP() {
		d.member(base, prefixMember(p, setGone), !d.forget && isGone(d.model, d.state, p, want), PhaseClose, PhaseUnguard)
		d.element(base, releasedElement(p.Addr()), !d.forget && isReleased(d.model, d.state, p, want), PhaseClose, PhaseUnguard)
	}
	switch {
	case want.bound:
		if source := d.model.facts.source(p.Addr()); !isBound || have != source {
			d.ipvs(base, PhaseBind, ipvs.Op{Verb: ipvs.Bind, Prefix: p, Source: source})
		}
	case isBound:
		d.ipvs(base, PhaseUnbind, ipvs.Op{Verb: ipvs.Unbind, Prefix: p})
	}
}

func (d *differ) ipvs(o Op, phase Phase, op ipvs.Op) {
	o.IPVS = put(&d.onIPVS, op)
	d.plan(o, phase)
}

func (d *differ) plan(o Op, phase Phase) {
	o.Phase = phase
	d.phases[phase] = append(d.phases[phase], o)
}

// key plans one frontend: its set entries, its virtual server, and what its clients inside the cluster see.
func (d *differ) key(k ipvs.Key) {
	if k.Mark != 0 {
		d.view(k)
		return
	}
	f, want := d.model.Frontend(k)
	base := Op{Service: d.service, Key: k}
	if want {
		base.Service = f.Service
	}
	if want && f.VIP {
		// What guards the address goes with the frontend, also when only the frontend is retried.
		for _, p := range d.model.bindings(k.Addr) {
			d.prefix(p)
		}
	}
	serves := want && f.Kind != HealthCheck
	for _, set := range []string{setExternal, setExternalLocal} {
		d.member(base, keyMember(k, set), want && f.masqueradeSet() == set, PhaseGuard, PhaseUnguard)
	}
	d.member(base, keyMember(k, setNoLocal), want && f.Drop == DropEverybody, PhaseGuard, PhaseOpen)
	d.member(base, keyMember(k, setNoLocalOutside), want && f.Drop == DropOutside, PhaseGuard, PhaseOpen)
	d.member(base, keyMember(k, setServed), serves && f.VIP, PhaseOpen, PhaseClose)
	d.member(base, keyMember(k, setHealth), want && !serves, PhaseOpen, PhaseClose)
	d.member(base, loopbackMember(k), want && f.Loopback, PhaseOpen, PhaseClose)
	d.ranges(base, f.Ranges)
	d.element(base, frontendElement(k), serves, PhaseGuard, PhaseUnguard)
	d.element(base, onePacketElement(k), serves && f.onePacket(), PhaseGuard, PhaseUnguard)
	d.inside(k)
	d.member(base, keyMember(k, setGonePort), !d.forget && isPortGone(d.model, d.state, k), PhaseClose, PhaseOpen)
	d.port(base, want && f.OnlyPort)
	have, exists := d.state.IPVS.Virtual[k]
	switch {
	case serves:
		d.virtual(base, f, have, exists)
	case exists:
		d.ipvs(base, PhaseDrain, ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
	}
}

// inside plans the views that inside clients of a frontend are led to, and were led to before.
func (d *differ) inside(k ipvs.Key) {
	if view, ok := d.model.viewOf(k); ok {
		d.view(view)
	}
	set := setID(lb.FamilyOf(k.Addr), mapInside)
	if mark, ok := d.state.NFT[set][elementKey(k)]; ok {
		d.view(markKey(set.Family == nftables.IPv6, mark))
	}
}

// port plans whether the frontend's port alone is local.
func (d *differ) port(base Op, want bool) {
	have, isBound := d.state.IPVS.Ports[base.Key]
	switch {
	case want:
		if source := d.model.facts.source(base.Key.Addr); !isBound || have != source {
			d.ipvs(base, PhaseBind, ipvs.Op{Verb: ipvs.BindPort, Key: base.Key, Source: source})
		}
	case isBound:
		d.ipvs(base, PhaseUnbind, ipvs.Op{Verb: ipvs.UnbindPort, Key: base.Key})
	}
}

// ranges plans who may use a frontend. Of two sets of ranges the sources that are in both are allowed all the time.
func (d *differ) ranges(base Op, want []netip.Prefix) {
	for _, p := range want {
		d.member(base, rangeMember(base.Key, p), true, PhaseAllow, PhaseLast)
	}
	d.member(base, keyMember(base.Key, setRanged), len(want) > 0, PhaseGuard, PhaseUnguard)
	for _, p := range d.state.ranges[base.Key] {
		if !slices.Contains(want, p) {
			d.member(base, rangeMember(base.Key, p), false, PhaseAllow, PhaseLast)
		}
	}
}

// virtual plans a wanted virtual server. Both lists of real servers are sorted; one walk over both finds the
// differences.
func (d *differ) virtual(base Op, f Frontend, have ipvs.VirtualServer, exists bool) {
	want := f.Virtual
	switch {
	case !exists:
		d.ipvs(base, PhaseServe, ipvs.Op{Verb: ipvs.AddVirtual, Key: base.Key, Config: want.Config})
	case want.Config.Scheduler != have.Config.Scheduler:
		d.exchange(base, want.Config)
	case want.Config != have.Config:
		d.ipvs(base, PhaseServe, ipvs.Op{Verb: ipvs.EditVirtual, Key: base.Key, Config: want.Config})
	}
	i, j := 0, 0
	for i < len(want.Real) || j < len(have.Real) {
		switch {
		case j == len(have.Real) || i < len(want.Real) && want.Real[i].Compare(have.Real[j].Dest) < 0:
			d.ipvs(base, PhaseServe, ipvs.Op{Verb: ipvs.AddReal, Key: base.Key, Real: want.Real[i]})
			i++
		case i == len(want.Real) || want.Real[i].Compare(have.Real[j].Dest) > 0:
			d.drain(base, f, have.Real[j])
			j++
		default:
			if want.Real[i].Weight != have.Real[j].Weight {
				d.ipvs(base, PhaseServe, ipvs.Op{Verb: ipvs.EditReal, Key: base.Key, Real: want.Real[i]})
			}
			i, j = i+1, j+1
		}
	}
}
