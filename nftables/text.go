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
		kind, typ := "set", s.Key.name(t.Family)
		if s.Marks {
			kind, typ = "map", typ+" : mark"
		}
		fmt.Fprintf(&b, "\t%s %s { type %s; }\n", kind, s.Name, typ)
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s priority %d; policy accept;\n", c.Name, c.Hook.name(t.Family), c.Priority)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.Text(t.Family))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (k KeyType) name(f Family) string {
	switch k {
	case PacketMark:
		return "mark"
	case Addr:
		return addrType(f)
	case AddrProtoPort:
	}
	return addrType(f) + " . inet_proto . inet_service"
}

func addrType(f Family) string {
	if f == IPv6 {
		return "ipv6_addr"
	}
	return "ipv4_addr"
}

func (h Hook) name(f Family) string {
	switch {
	case f == ARP, h == Input:
		return "input"
	case h == Prerouting:
		return "prerouting"
	case h == Forward:
		return "forward"
	}
	return "output"
}
