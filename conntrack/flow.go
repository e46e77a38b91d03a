package conntrack

import (
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/lb"
)

// Flow is one entry of the table, as far as it says who sends where and who answers.
type Flow struct {
	Proto lb.Proto
	// Client is the source of the first packet, before masquerading.
	Client netip.AddrPort
	// Dst is where the client sends to.
	Dst netip.AddrPort
	// Server is where answers come from: the real server, or Dst if nothing was translated.
	Server netip.AddrPort
	// Unanswered is set when nothing has come back so far.
	Unanswered bool
}

// Frontend is where clients of a protocol send to.
type Frontend struct {
	Proto lb.Proto
	At    netip.AddrPort
}

// Servers are the real servers of a UDP frontend.
type Servers struct {
	// Gone is set when the frontend does not exist any more.
	Gone bool
	// Live are those that may answer, sorted.
	Live []netip.AddrPort
}

// Frontends are UDP frontends, by the address and port that clients send to.
type Frontends map[netip.AddrPort]Servers

// Cleanup says what is stale. The zero value is nothing.
type Cleanup struct {
	Frontends Frontends
	// Added are real servers that have just been added to a UDP frontend. What one of them sent when its clients' flows
	// were gone, such as the last answer before a Service was deleted, is tracked as a flow that the server itself began;
	// it stands in the way of the next flow between the same two, whose packets the kernel drops for as long as it lives.
	Added map[netip.AddrPort]struct{}
	// Opened are TCP and SCTP frontends whose clients may have begun before them.
	Opened map[Frontend]struct{}
}

// Empty reports whether nothing can be stale.
func (c Cleanup) Empty() bool { return c.Len() == 0 }

// Len is the number of frontends and servers.
func (c Cleanup) Len() int { return len(c.Frontends) + len(c.Added) + len(c.Opened) }

// Stale reports whether an entry must go. Flows to an address and port that is not among the frontends are none of
// our business, whatever their port (a node port's number is a common port elsewhere). Of a frontend that exists an
// entry is right if it leads to one of its real servers. Of one that is gone those that led to a real server go;
// others belong to whoever has the address now, such as a socket of the node. Of what an added server began only that
// goes which nobody has answered.
//
// IPVS cares for its TCP and SCTP connections itself. Only one that has never been sent to a real server and that nobody
// has answered goes: its client sends the first segment again.
func (c Cleanup) Stale(f Flow) bool {
	if f.Proto != lb.UDP {
		_, opened := c.Opened[Frontend{Proto: f.Proto, At: f.Dst}]
		return opened && f.Unanswered && f.Server == f.Dst
	}
	if _, added := c.Added[f.Client]; added && f.Unanswered {
		return true
	}
	s, ours := c.Frontends[f.Dst]
	if !ours {
		return false
	}
	if s.Gone {
		return f.Server != f.Dst
	}
	_, live := slices.BinarySearchFunc(s.Live, f.Server, netip.AddrPort.Compare)
	return !live
}

// OfFamily returns what is about IPv4 or IPv6 addresses.
func (c Cleanup) OfFamily(ipv6 bool) Cleanup {
	out := Cleanup{Frontends: Frontends{}, Added: map[netip.AddrPort]struct{}{}, Opened: map[Frontend]struct{}{}}
	for a, s := range c.Frontends {
		if a.Addr().Is6() == ipv6 {
			out.Frontends[a] = s
		}
	}
	for a := range c.Added {
		if a.Addr().Is6() == ipv6 {
			out.Added[a] = struct{}{}
		}
	}
	for f := range c.Opened {
		if f.At.Addr().Is6() == ipv6 {
			out.Opened[f] = struct{}{}
		}
	}
	return out
}
