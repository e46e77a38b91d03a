// Package ipvsnl is the kernel side of package ipvs: its Table programs virtual and real servers and makes addresses
// local, over netlink sockets that stay open. It also offers what a node needs around that: the node's own
// addresses, the sysctls that IPVS depends on, and a check of what the kernel lacks.
//
// # Errors of the kernel
//
// An absent virtual server is ESRCH, an absent real server ENOENT. ENOENT for a virtual server means that the
// kernel does not have its scheduler. A missing IPVS module would go unnoticed, because moby/ipvs then sends requests
// of a type that the kernel acknowledges and ignores; [Open] therefore asks for IPVS before that library does.
//
// # Bound addresses
//
// A prefix is made local by a route on a dummy device:
//
//	ip route replace local PREFIX dev kube-ipvs0 table local proto 130 metric 1024 [src SOURCE]
//
// Only routes in that table, on that device and with that protocol number are ours. The metric keeps them apart from
// those that the kernel itself makes for the addresses of the node, which have metric 0: binding such an address
// neither replaces its route nor removes it on unbinding.
//
// When a source stops being an address of the node, the kernel keeps it for IPv4 and drops it for IPv6; bind again
// with another one. While the device is down, IPv6 prefixes are not bound and IPv4 ones are.
//
// # What others programmed
//
// Dump returns everything, also what package ipvs cannot express; see FlagForeign and WeightForeign there for how that is
// made to differ from every wanted state. One thing remains unseen, a persistence engine. A real server of the other
// address family (tunnelled) is returned, but it can only be removed together with its virtual server.
package ipvsnl
