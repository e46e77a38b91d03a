package informers

import (
	"net/netip"
	"strconv"
	"strings"

	netutils "k8s.io/utils/net"

	"github.com/kube-hop/kube-hop/lb"
)

const (
	wantAddr   = "must be an IP address"
	wantPlace  = "must not be an unspecified, loopback or multicast address"
	wantPrefix = "must be a CIDR, such as 10.0.0.0/8"
	wantProto  = "must be TCP, UDP or SCTP"
	wantPort   = "must be 1 to 65535"
	wantName   = "must be set"
)

// parseAddr reads an address the way Kubernetes does for stored objects: leading zeros are decimal ("010.0.0.1" is
// 10.0.0.1), as Go's parser accepted before 1.17. The result is unmapped; an address with a zone is refused.
func parseAddr(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap(), a.Zone() == ""
	}
	a, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	return a.Unmap(), ok
}

// parsePrefix reads a CIDR with the leniency of parseAddr. Host bits are cleared, and a range of IPv4-mapped
// addresses becomes the IPv4 range.
func parsePrefix(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		_, n, err := netutils.ParseCIDRSloppy(s)
		if err != nil {
			return netip.Prefix{}, false
		}
		a, ok := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		if !ok {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, ones)
	}
	const mapped = 96 // bits of ::ffff:0:0/96, RFC 4291 section 2.5.5.2
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), true
}

// addr reads an address that traffic is to be sent to, and records a problem if there is none. The API server admits
// neither unspecified nor loopback nor multicast addresses as externalIPs and endpoints (core validation,
// ValidateEndpointIP), a folder may hold them: making 127.0.0.1 a virtual address would cut the node off from itself.
func (r *report) addr(field, s string) (netip.Addr, bool) {
	a, ok := parseAddr(s)
	if !ok {
		r.add(field, s, wantAddr)
		return netip.Addr{}, false
	}
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		r.add(field, s, wantPlace)
		return netip.Addr{}, false
	}
	return a, true
}

// addrOf is addr for a field whose family is fixed.
func (r *report) addrOf(family lb.Family, field, s string) (netip.Addr, bool) {
	a, ok := r.addr(field, s)
	if ok && lb.FamilyOf(a) != family {
		r.add(field, s, "must be an "+family.String()+" address")
		return netip.Addr{}, false
	}
	return a, ok
}

// prefixes reads a list of CIDRs. Spaces around an entry are dropped, blank entries are skipped silently.
func (r *report) prefixes(field string, entries []string) []netip.Prefix {
	var out []netip.Prefix
	for i, s := range entries {
		s = strings.TrimSpace(s)
		if s == "" {
			continue
		}
		p, ok := parsePrefix(s)
		if !ok {
			r.add(item(field, i), s, wantPrefix)
			continue
		}
		out = append(out, p)
	}
	return out
}

// port reads a port number that must be there.
func (r *report) port(field string, n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		value := ""
		if n != 0 {
			value = strconv.Itoa(int(n))
		}
		r.add(field, value, wantPort)
		return 0, false
	}
	return uint16(n), true
}

// optionalPort reads a port number for which zero means none.
func (r *report) optionalPort(field string, n int32) uint16 {
	if n == 0 {
		return 0
	}
	p, _ := r.port(field, n)
	return p
}

// proto reads a protocol; empty is TCP, the default of the API (core/v1 ServicePort, discovery/v1 EndpointPort).
func (r *report) proto(field, s string) (lb.Proto, bool) {
	switch s {
	case "", "TCP":
		return lb.TCP, true
	case "UDP":
		return lb.UDP, true
	case "SCTP":
		return lb.SCTP, true
	}
	r.add(field, s, wantProto)
	return 0, false
}
