package render

import (
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/nftables"
)

// Uses says what Services use of that which has chains of its own in nf_tables. Every packet of the node passes a chain, so
// what nobody uses has none.
type Uses struct {
	// Inside is that clients inside the cluster see something else at an address than those outside.
	Inside Use
	// OnePacket is one-packet scheduling.
	OnePacket Use
}

// Use is whether something is used.
type Use uint8

// The answers, each outweighing those before it. As long as it is not known, chains are neither made nor deleted.
const (
	Unknown Use = iota
	Unused
	Used
)

// UsesOf returns what the model wants to use, or the state still does. It costs the same whatever they hold.
func UsesOf(m *Model, st State) Uses {
	have := st.Uses()
	return Uses{
		Inside:    max(have.Inside, used(len(m.marks.of) > 0)),
		OnePacket: max(have.OnePacket, used(m.onePacket > 0)),
	}
}

// Uses returns what is used by what the state holds.
func (s State) Uses() Uses {
	var inside, onePacket int
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		inside += len(s.NFT[setID(f, mapInside)]) + len(s.NFT[setID(f, setMarks)])
		onePacket += len(s.NFT[setID(f, setOnePacket)])
	}
	return Uses{Inside: used(inside > 0), OnePacket: used(onePacket > 0)}
}

func used(is bool) Use {
	if is {
		return Used
	}
	return Unused
}

// chains returns those of something's chains that are wanted.
func (u Use) chains(all []nftables.Chain) []nftables.Chain {
	switch u {
	case Unused:
		return nil
	case Unknown:
		for i := range all {
			all[i].IfThere = true
		}
	case Used:
	}
	return all
}
