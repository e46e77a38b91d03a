// Package ipsetnl is the kernel implementation of [iptables.Sets]: it speaks the ipset protocol over one netlink
// socket and starts no process.
//
// Many entries travel in one message (IPSET_ATTR_ADT), which is what makes the first sync of a large cluster
// fast. The kernel works through such a message until the first entry that fails and says which one that was
// (IPSET_ATTR_LINENO); the rest is then sent again, so that one bad entry stops no other.
//
// Two facts of the kernel (Linux 6.12, 6.18). The limit MaxElem is exact only up to 1024 buckets, some thousand
// entries: beyond that each region of the hash has its share, and a set of 20000 took 20061. And prefix length 0
// does not exist, see [iptables.Storable].
//
// The name kube-hop-grow is reserved for the set that stands in while another one is grown.
package ipsetnl
