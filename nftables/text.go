package nftables

import (
	"fmt"
	"strings"
)

// String prints the table as the nft command takes it, without elements.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.Family, t.Name)
	for _, s := range t.Sets {
		kind, typ, learned := "set", s.Key.name(t.Family), ""
		if s.Value != 0 {
			kind, typ = "map", typ+" : "+s.Value.name(t.Family)
		}
		if s.Learned > 0 {
			learned = fmt.Sprintf(" flags dynamic,timeout; timeout %s;", s.Learned)
		}
		fmt.Fprintf(&b, "\t%s %s { type %s;%s }\n", kind, s.Name, typ, learned)
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype %s hook %s priority %d; policy accept;\n", c.Name, c.Type(), c.Hook.name(t.Family), c.Priority)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.Text(t.Family))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// Type returns the word of the nft command, and of the kernel, for what the chain is for.
func (c Chain) Type() string {
	if c.NAT {
		return "nat"
	}
	return "filter"
}

func (k KeyType) name(f Family) string {
	addr := "ipv4_addr"
	if f == IPv6 {
		addr = "ipv6_addr"
	}
	switch k {
	case PacketMark:
		return "mark"
	case Addr:
		return addr
	case AddrPort:
		return addr + " . inet_service"
	case AddrPorts:
		return addr + " . inet_service . " + addr + " . inet_service"
	case AddrProtoPort:
	}
	return addr + " . inet_proto . inet_service"
}

func (h Hook) name(f Family) string {
	switch {
	case f == ARP, h == Input:
		return "input"
	case h == Prerouting:
		return "prerouting"
	case h == Forward:
		return "forward"
	case h == Postrouting:
		return "postrouting"
	}
	return "output"
}
