package conntrack

import (
	"net/netip"
	"slices"
)

// Flow is one UDP entry of the table, as far as it says who sends where and who answers.
type Flow struct {
	// Client is the source of the first datagram, before masquerading.
	Client netip.AddrPort
	// Dst is where the client sends to.
	Dst netip.AddrPort
	// Server is where answers come from: the real server, or Dst if nothing was translated.
	Server netip.AddrPort
}

// Servers are the real servers of a frontend.
type Servers struct {
	// Gone is set when the frontend does not exist any more.
	Gone bool
	// Live are those that may answer, sorted.
	Live []netip.AddrPort
}

// Frontends are UDP frontends, by the address and port that clients send to.
type Frontends map[netip.AddrPort]Servers

// Stale reports whether an entry must go. Flows to an address and port that is not among the frontends are none of
// our business, whatever their port (a node port's number is a common port elsewhere). Of a frontend that exists an
// entry is right if it leads to one of its real servers. Of one that is gone those that led to a real server go;
// others belong to whoever has the address now, such as a socket of the node.
func (fs Frontends) Stale(f Flow) bool {
	s, ours := fs[f.Dst]
	if !ours {
		return false
	}
	if s.Gone {
		return f.Server != f.Dst
	}
	_, live := slices.BinarySearchFunc(s.Live, f.Server, netip.AddrPort.Compare)
	return !live
}

// OfFamily returns the frontends with IPv4 or IPv6 addresses.
func (fs Frontends) OfFamily(ipv6 bool) Frontends {
	out := Frontends{}
	for a, s := range fs {
		if a.Addr().Is6() == ipv6 {
			out[a] = s
		}
	}
	return out
}
