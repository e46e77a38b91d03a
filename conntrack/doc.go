// Package conntrack says which flows in the kernel's connection tracking table are stale: they go where no answer comes
// from any more, were never sent to a real server because they are older than their frontend, or stand in the way of a
// new one. It also holds the contract ([Table]) that the kernel (package conntrack/ctnl) and the in-memory fake
// (package conntrack/conntracktest) both fulfil.
//
// IPVS keeps connections of its own and forgets those to a removed real server by itself, with their entries
// (net.ipv4.vs.expire_nodest_conn), but only at the next datagram; and it knows nothing of entries that were made
// without it. An entry decides about source NAT for as long as its client keeps sending: a TCP client that began before
// its frontend existed sends its SYN again, IPVS schedules it, and it reaches the real server as it is, with the client's
// own address.
//
// The package is pure: values in, values out.
package conntrack
