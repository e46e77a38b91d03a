package ipvs

import (
	"net/netip"
	"slices"
	"time"
)

// Config is what a virtual server is apart from its real servers. It is comparable.
type Config struct {
	// Scheduler is the kernel's name of the scheduler, such as rr.
	Scheduler string
	// Persistence is how long a client address stays bound to one real server: whole seconds, 1 to 86400 in
	// Kubernetes, zero for none. Persistence is always per full client address. Sources: IPVS_SVC_ATTR_TIMEOUT
	// and IPVS_SVC_ATTR_NETMASK in linux/ip_vs.h.
	Persistence time.Duration
	// Flags are the scheduler and one-packet flags; the persistent and hashed flags are not among them.
	Flags Flags
}

// Flags of a virtual server, bits as in linux/ip_vs.h.
type Flags uint32

// The flags that a virtual server can be given.
const (
	FlagOnePacket Flags = 0x0004 // IP_VS_SVC_F_ONEPACKET
	FlagSched1    Flags = 0x0008 // IP_VS_SVC_F_SCHED1: sh-fallback, mh-fallback
	FlagSched2    Flags = 0x0010 // IP_VS_SVC_F_SCHED2: sh-port, mh-port
	FlagSched3    Flags = 0x0020 // IP_VS_SVC_F_SCHED3
	FlagsAll            = FlagOnePacket | FlagSched1 | FlagSched2 | FlagSched3
)

// FlagForeign appears only in what Dump returns, and never in the kernel: the virtual server has a setting that
// Config cannot express, such as persistence for a part of the client address. It makes the virtual server differ
// from every wanted one; EditVirtual removes the setting.
const FlagForeign Flags = 1 << 31

// WeightForeign is the weight that Dump returns for a real server that RealServer cannot express: forwarding by
// another method than masquerading, or connection thresholds. It makes the real server differ from every wanted
// one; EditReal turns it into an ordinary one.
const WeightForeign = -1

// RealServer is one real server. Forwarding is always masquerading (NAT).
type RealServer struct {
	Dest
	// Weight is 0 to 65535; 0 means draining: established connections go on, no new ones come.
	// Only a Dump also returns [WeightForeign].
	Weight int
}

// VirtualServer is a virtual server with its real servers, sorted by Dest, without duplicates.
type VirtualServer struct {
	Config
	Real []RealServer
}

// Equal reports whether both are the same in every respect.
func (v VirtualServer) Equal(o VirtualServer) bool {
	return v.Config == o.Config && slices.Equal(v.Real, o.Real)
}

// State is everything in one network namespace. Bound maps the prefixes that were made local on our device to the
// source address that connections from the node itself to them use (invalid: the kernel chooses). Ports does the same for
// single ports of addresses that are otherwise not local, such as those of another host on the node's network.
type State struct {
	Virtual map[Key]VirtualServer
	Bound   map[netip.Prefix]netip.Addr
	Ports   map[Key]netip.Addr
}

// Conns counts the connections of one real server.
type Conns struct {
	Active, Inactive int
	// In and Out count the packets to and from the real server since it was added. They wrap around.
	In, Out uint32
}
