package ipvsnl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// A bound port is a rule that sends packets to it into a routing table of ours, in which everything is local. The
// kernel tells ports apart when it looks for a route; a packet to another port of the address never meets that table.
const (
	// PortTable is that table. No other number below 2^31 is more likely to be free: it is not one of iproute2's, and
	// network plugins count from 1, 100 or 1000.
	PortTable = 130130
	// portPriority comes before the rules of network plugins, which send pods' packets into tables of their own.
	portPriority = 130
)

// portRoute is the route of the table: everything in it is local.
func portRoute(family int, source netip.Addr) netlink.Route {
	all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if family == netlink.FAMILY_V4 {
		all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	r := localRoute(all, source)
	r.Table, r.Family = PortTable, family
	return r
}

// portRule is the rule that leads to it.
func portRule(k ipvs.Key) *netlink.Rule {
	r := netlink.NewRule()
	r.Family = familyOf(k.Addr)
	r.Dst = &net.IPNet{IP: net.IP(k.Addr.AsSlice()), Mask: net.CIDRMask(k.Addr.BitLen(), k.Addr.BitLen())}
	r.IPProto = int(k.Proto)
	r.Dport = netlink.NewRulePortRange(k.Port, k.Port)
	r.Table, r.Priority, r.Protocol = PortTable, portPriority, RouteProtocol
	return r
}

// fromRule is the inverse of portRule; ok is false for a rule that is not one of ours.
func fromRule(r *netlink.Rule) (k ipvs.Key, ok bool) {
	if r.Table != PortTable || r.Protocol != RouteProtocol || r.Dst == nil || r.Dport == nil || r.Dport.Start != r.Dport.End {
		return ipvs.Key{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	k = ipvs.Key{Addr: addr.Unmap(), Port: r.Dport.Start, Proto: ipvs.Proto(r.IPProto)} //nolint:gosec // as it was given
	return k, ok
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// bindPort makes the table's route what it must be, then adds the rule: never a rule to an empty table.
func (t *Table) bindPort(op ipvs.Op, l *link) error {
	r := portRoute(familyOf(op.Key.Addr), op.Source)
	if err := t.replaceRoute(&r, l); err != nil {
		return err
	}
	if err := t.routes.RuleAdd(portRule(op.Key)); !errors.Is(err, unix.EEXIST) {
		return err //nolint:wrapcheck // the caller wraps it with the operation
	}
	return nil
}

func (t *Table) unbindPort(op ipvs.Op) error {
	err := t.routes.RuleDel(portRule(op.Key))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err //nolint:wrapcheck // the caller wraps it with the operation
}

// dumpPorts finds our rules. Those of a family whose route is gone, with our device or with the source address, bind
// nothing.
func (t *Table) dumpPorts(ctx context.Context) (map[ipvs.Key]netip.Addr, error) {
	ports := map[ipvs.Key]netip.Addr{}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dump bound ports: %w", err)
	}
	err := retryDump(func() error {
		clear(ports)
		for _, family := range families {
			if err := t.eachPort(family, ports); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("dump bound ports: %w", err)
	}
	return ports, nil
}

func (t *Table) eachPort(family int, ports map[ipvs.Key]netip.Addr) error {
	rules, err := t.routes.RuleListFiltered(family, &netlink.Rule{Table: PortTable}, netlink.RT_FILTER_TABLE)
	if err != nil || len(rules) == 0 {
		return err //nolint:wrapcheck // by the caller
	}
	filter := &netlink.Route{Table: PortTable, Protocol: RouteProtocol}
	routes, err := t.routes.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil || len(routes) == 0 {
		return err //nolint:wrapcheck // by the caller
	}
	source, _ := netip.AddrFromSlice(routes[0].Src)
	for i := range rules {
		if k, ok := fromRule(&rules[i]); ok {
			ports[k] = source.Unmap()
		}
	}
	return nil
}
