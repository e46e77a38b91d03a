// Package loopback holds the contract for node ports on loopback addresses: 127.0.0.0/8 and ::1 with the number of a
// node port lead to the Service, for programs in the node's own network namespace.
//
// A packet cannot do that. IPVS does not forward from a loopback source, and iptables needs route_localnet for it, which
// lets neighbours reach what listens on loopback. So the destination is replaced earlier, when a socket of the node
// connects or sends: by an address of the node that answers on node ports. What leaves the socket is an ordinary
// connection of the node to its own node port, no loopback packet is ever forwarded, and no other loopback port changes.
//
// The kernel implementation is package loopback/sockhook, the fake is in loopback/loopbacktest; both pass the same
// conformance suite.
package loopback
