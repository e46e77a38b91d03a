// Package testbed builds a small cluster out of network namespaces in one kernel, so that end-to-end tests can
// look at packets and not only at rules.
//
// IPVS, iptables, ipsets, conntrack and most sysctls belong to a network namespace. A "node" is therefore a
// namespace in which one daemon runs, a "pod" a namespace joined to a bridge in its node, and the network between
// nodes ("the wire") a bridge in a namespace of its own. The default bed:
//
//	 out                     n1                           n2
//	 192.168.50.100          192.168.50.11                192.168.50.12
//	 fd50::100               fd50::11                     fd50::12
//	  |eth0                   |eth0                        |eth0
//	==+=======================+=== wire 192.168.50.1 ======+==
//	                         cbr0 10.244.1.1              cbr0 10.244.2.1
//	                          |    fd24:0:0:1::1           |    fd24:0:0:2::1
//	                         a1 10.244.1.11               b1 10.244.2.11
//	                         a2 10.244.1.12               b2 10.244.2.12
//
// Nodes have a default route to the wire's own address, which forwards nothing: what no rule captures is lost there,
// as it would be at a real gateway. The outside client has no default route; it knows the nodes, and the Service
// ranges by way of n1.
//
// Everything is done over netlink and with sockets in this process. Where the tests run, an emulated guest, starting
// a process is a hundred times dearer than a netlink request.
//
// Invariants: a function given to [Host.Do] is the only code that runs in a namespace, on a thread that serves
// nobody else meanwhile; all that a bed made is gone after [Bed.Close], also if [New] fails half-way.
package testbed
