package ipsetnl

import "github.com/kube-hop/kube-hop/iptables"

// Protocol version that is spoken, which every kernel since 2.6.39 understands; newer ones announce 7 with 6 as
// their least. Source: IPSET_PROTOCOL, IPSET_PROTOCOL_MIN in linux/netfilter/ipset/ip_set.h, like all constants
// of this file.
const protocolVersion = 6

const maxNameLen = 31 // IPSET_MAXNAMELEN without the final zero

// Commands, enum ipset_cmd.
const (
	cmdProtocol = 1
	cmdCreate   = 2
	cmdDestroy  = 3
	cmdSwap     = 6
	cmdList     = 7
	cmdAdd      = 9
	cmdDel      = 10
)

// Attributes of a command.
const (
	attrProtocol    = 1
	attrSetName     = 2
	attrTypeName    = 3
	attrSetName2    = 3 // of swap
	attrRevision    = 4
	attrFamily      = 5
	attrFlags       = 6
	attrData        = 7
	attrADT         = 8 // many attrData
	attrLineno      = 9 // of a command and of an entry
	attrProtocolMin = 10
)

// Attributes in attrData: of an entry, and those that only a set has.
const (
	attrIP       = 1
	attrCIDR     = 3
	attrPort     = 4
	attrProto    = 7
	attrHashSize = 18
	attrMaxElem  = 19
	attrIP2      = 20 // of an entry; 20 means netmask in a set
	attrCIDR2    = 21
	attrElements = 24 // how many entries a set has
)

// Attributes in attrIP and attrIP2.
const (
	attrIPv4 = 1
	attrIPv6 = 2
)

// Parts of an attribute's type. Source: linux/netlink.h.
const (
	flagNetOrder = 0x4000 // NLA_F_NET_BYTEORDER; the kernel insists on it for ports, addresses and sizes
)

// listHeader asks for sets without their entries. Source: IPSET_FLAG_LIST_HEADER.
const listHeader = 1 << 2

// Families as netfilter numbers them. Source: NFPROTO_IPV4, NFPROTO_IPV6 in linux/netfilter.h.
const (
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10
)

// revision returns the revision of a set type to create: the one that added skbinfo in Linux 3.18, which any
// kernel and any ipset command in use knows. The newest one of the kernel would keep an older ipset command from
// listing the sets.
func revision(t iptables.SetType) uint8 {
	switch t {
	case iptables.HashIPPort:
		return 5
	case iptables.HashNet:
		return 6
	case iptables.HashIPPortNet:
		return 7
	}
	return 0
}

func nfproto(f iptables.Family) uint8 {
	if f == iptables.IPv6 {
		return nfprotoIPv6
	}
	return nfprotoIPv4
}
