package render

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/nftables"
)

// State is what the kernel holds of ours, as far as it changes with Services. The daemon keeps one as its shadow of
// the kernel; it is read from the kernel at the start and at each verification.
type State struct {
	IPVS ipvs.State
	Sets iptables.SetState
	NFT  nftables.State
	// ranges finds the entries of the range sets by frontend.
	ranges map[ipvs.Key][]netip.Prefix
	// inside finds the frontends that lead to a mark-based virtual server.
	inside map[ipvs.Key]map[ipvs.Key]struct{}
}

// NewState returns an empty state.
func NewState() State {
	return StateOf(ipvs.State{Virtual: map[ipvs.Key]ipvs.VirtualServer{}, Bound: map[netip.Prefix]netip.Addr{}, Ports: map[ipvs.Key]netip.Addr{}}, iptables.SetState{}, nftables.State{})
}

// StateOf returns the state with these contents, which it keeps.
func StateOf(kernel ipvs.State, sets iptables.SetState, nft nftables.State) State {
	s := State{
		IPVS: kernel, Sets: sets, NFT: nft,
		ranges: map[ipvs.Key][]netip.Prefix{}, inside: map[ipvs.Key]map[ipvs.Key]struct{}{},
	}
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		for e := range sets[setName(f, setRange)] {
			k := entryKey(e)
			s.ranges[k] = append(s.ranges[k], e.Net)
		}
		for k, mark := range nft[setID(f, mapInside)] {
			s.indexInside(setID(f, mapInside), k, mark)
		}
	}
	return s
}

func (s State) indexInside(set nftables.SetID, k nftables.Key, mark uint32) {
	view := markKey(set.Family == nftables.IPv6, mark)
	if s.inside[view] == nil {
		s.inside[view] = map[ipvs.Key]struct{}{}
	}
	key, _ := keyOf(set, k)
	s.inside[view][key] = struct{}{}
}

func entryKey(e iptables.Entry) ipvs.Key {
	return ipvs.Key{Addr: e.Prefix.Addr(), Port: e.Port, Proto: ipvs.Proto(e.Proto)}
}

// has reports whether a set holds an entry.
func (s State) has(m member) bool {
	_, ok := s.Sets[m.set][m.entry]
	return ok
}

// holds reports whether a set or map of nf_tables holds an element, with its mark.
func (s State) holds(e element) bool {
	mark, ok := s.NFT[e.set][e.key]
	return ok && mark == e.mark
}

// RecordsKey reports whether a set records the frontend as ours. The entries of an external frontend or a node port
// are written before its virtual server and deleted after it, so the record holds after a crash between any two
// operations. A ClusterIP's is written after it, to keep the guard closed until then; see Guards.
func (s State) RecordsKey(k ipvs.Key) bool {
	if k.Mark != 0 {
		return s.holds(markElement(k))
	}
	for _, set := range []string{setServed, setExternal, setExternalLocal} {
		if s.has(keyMember(k, set)) {
			return true
		}
	}
	return false
}

// Guards reports whether an address lies in what kube-hop made local. Nobody else has a reason to put a virtual
// server there, so one that a crash left unrecorded is still known as ours.
func (s State) Guards(a netip.Addr) bool {
	for bits := 0; bits <= a.BitLen(); bits++ {
		p, _ := a.Prefix(bits)
		if s.has(prefixMember(p, setVIP)) || s.has(prefixMember(p, setClusterIP)) {
			return true
		}
	}
	return false
}

// Record notes operations that the kernel accepted, in order. Only the virtual servers concerned are copied, once
// for each run of operations on one and its real servers.
func (s State) Record(ops ...Op) {
	for len(ops) > 0 {
		n := virtualRun(ops)
		if n > 0 {
			v := s.IPVS.Virtual[ops[0].Key]
			s.IPVS.Virtual[ops[0].Key] = changed(v, ops[:n])
		} else {
			n = 1
			s.record(ops[0])
		}
		ops = ops[n:]
	}
}

// virtualRun returns how many operations at the head of ops change the same virtual server or its real servers.
func virtualRun(ops []Op) int {
	for i, o := range ops {
		if o.IPVS == nil || o.IPVS.Key != ops[0].Key {
			return i
		}
		switch o.IPVS.Verb {
		case ipvs.AddVirtual, ipvs.EditVirtual, ipvs.AddReal, ipvs.EditReal, ipvs.DeleteReal:
		default:
			return i
		}
	}
	return len(ops)
}

func (s State) record(o Op) {
	switch {
	case o.Set != nil:
		s.applySet(*o.Set)
		return
	case o.NFT != nil:
		s.applyNFT(*o.NFT)
		return
	}
	op := *o.IPVS
	switch op.Verb {
	case ipvs.Bind:
		s.IPVS.Bound[op.Prefix] = op.Source
	case ipvs.Unbind:
		delete(s.IPVS.Bound, op.Prefix)
	case ipvs.BindPort:
		s.IPVS.Ports[op.Key] = op.Source
	case ipvs.UnbindPort:
		delete(s.IPVS.Ports, op.Key)
	case ipvs.DeleteVirtual:
		delete(s.IPVS.Virtual, op.Key)
	default: // on virtual and real servers, see changed
	}
}

// Share lets the state use the list of real servers that is wanted, if it is equal to the one that it holds: one
// list then serves all frontends of a Service, in the model and here.
func (s State) Share(k ipvs.Key, wanted []ipvs.RealServer) {
	if v, ok := s.IPVS.Virtual[k]; ok && slices.Equal(v.Real, wanted) {
		v.Real = wanted
		s.IPVS.Virtual[k] = v
	}
}

func (s State) applySet(op iptables.SetOp) {
	if op.Entry.Net.IsValid() {
		k := entryKey(op.Entry)
		rest := slices.DeleteFunc(s.ranges[k], func(p netip.Prefix) bool { return p == op.Entry.Net })
		switch {
		case !op.Delete:
			s.ranges[k] = append(rest, op.Entry.Net)
		case len(rest) == 0:
			delete(s.ranges, k)
		default:
			s.ranges[k] = rest
		}
	}
	if op.Delete {
		delete(s.Sets[op.Set], op.Entry)
		return
	}
	if s.Sets[op.Set] == nil {
		s.Sets[op.Set] = map[iptables.Entry]struct{}{}
	}
	s.Sets[op.Set][op.Entry] = struct{}{}
}

func (s State) applyNFT(op nftables.Op) {
	if op.Set.Name == mapInside {
		view := markKey(op.Set.Family == nftables.IPv6, s.NFT[op.Set][op.Key])
		key, _ := keyOf(op.Set, op.Key)
		delete(s.inside[view], key)
		if len(s.inside[view]) == 0 {
			delete(s.inside, view)
		}
		if !op.Delete {
			s.indexInside(op.Set, op.Key, op.Mark)
		}
	}
	if op.Delete {
		delete(s.NFT[op.Set], op.Key)
		return
	}
	if s.NFT[op.Set] == nil {
		s.NFT[op.Set] = map[nftables.Key]uint32{}
	}
	s.NFT[op.Set][op.Key] = op.Mark
}

// changed returns the virtual server after operations on it. The list of real servers is copied if it changes; the old one
// may be shared.
func changed(v ipvs.VirtualServer, ops []Op) ipvs.VirtualServer {
	copied := false
	for _, o := range ops {
		switch o.IPVS.Verb {
		case ipvs.AddVirtual, ipvs.EditVirtual:
			v.Config = o.IPVS.Config
			continue
		default:
		}
		if !copied {
			v.Real, copied = append(make([]ipvs.RealServer, 0, len(v.Real)+len(ops)), v.Real...), true
		}
		v.Real = withReal(v.Real, o.IPVS)
	}
	return v
}

// withReal adds, changes or deletes a real server of a sorted list, in place as far as there is room.
func withReal(list []ipvs.RealServer, op *ipvs.Op) []ipvs.RealServer {
	server := op.Real
	i, found := len(list), false
	if i > 0 && list[i-1].Dest.Compare(server.Dest) >= 0 { // most come in order
		i, found = slices.BinarySearchFunc(list, server.Dest, func(r ipvs.RealServer, d ipvs.Dest) int { return r.Dest.Compare(d) })
	}
	switch {
	case op.Verb == ipvs.DeleteReal && found:
		return slices.Delete(list, i, i+1)
	case op.Verb == ipvs.DeleteReal:
		return list
	case found:
		list[i] = server
		return list
	default:
		return slices.Insert(list, i, server)
	}
}

// FrontendsOf returns the frontends whose connections a virtual server takes: itself, or those that lead to a view.
func (s State) FrontendsOf(k ipvs.Key) []ipvs.Key {
	if k.Mark == 0 {
		return []ipvs.Key{k}
	}
	return sortedMapKeys(s.inside[k], ipvs.Key.Compare)
}

// RealServersOf returns who answers on a frontend: its own real servers, and those that clients inside the cluster see.
func (s State) RealServersOf(k ipvs.Key) []ipvs.RealServer {
	set := setID(lb.FamilyOf(k.Addr), mapInside)
	out := slices.Clone(s.IPVS.Virtual[k].Real)
	if mark, ok := s.NFT[set][elementKey(k)]; ok {
		out = append(out, s.IPVS.Virtual[markKey(set.Family == nftables.IPv6, mark)].Real...)
	}
	return out
}
