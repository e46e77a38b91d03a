package render

import (
	"net/netip"
	"strings"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback"
)

// The sets that the skeleton's rules look up. Everything per Service that netfilter needs to know is an entry in
// one of them, so the number of rules does not depend on the number of Services.
const (
	// setServed holds the frontends on bound VIPs that have a virtual server. What is not in it is rejected on a
	// VIP, so an entry comes last and goes first.
	setServed = prefix4 + "SERVED"
	// setExternal holds external frontends whose traffic is always masqueraded (policy Cluster).
	setExternal = prefix4 + "EXTERNAL"
	// setExternalLocal holds external frontends that keep the client's address (policy Local).
	setExternalLocal = prefix4 + "EXTERNAL-LOCAL"
	// setVIP holds every VIP that is local because kube-hop made it so: what is not in setServed is rejected there.
	setVIP = prefix4 + "VIP"
	// setClusterIP holds the ranges of ClusterIPs, and the ClusterIPs outside of them. An address of a range that is
	// not in setVIP belongs to no Service; what is sent there is dropped.
	setClusterIP = prefix4 + "CLUSTER-IP"
	// setOwn holds the addresses of ranges of ClusterIPs that the node has on an interface: they are not guarded.
	setOwn = prefix4 + "OWN"
	// setGone holds the addresses that were VIPs a moment ago, for packets that are on their way to them.
	setGone = prefix4 + "GONE"
	// setGonePort holds the frontends whose port alone was local a moment ago, for the same packets.
	setGonePort = prefix4 + "GONE-PORT"
	// setHealth holds the healthCheckNodePorts, which the daemon itself answers.
	setHealth = prefix4 + "HEALTH-CHECK"
	// setRanged holds the frontends that only sources in loadBalancerSourceRanges may use; setRange holds the pairs
	// of such a frontend and a range. A pair comes before its frontend is restricted and goes after.
	setRanged, setRange = prefix4 + "RANGED", prefix4 + "RANGE"
	// setNoLocal holds the frontends whose traffic policy leaves no endpoint although there are some: new connections
	// are dropped, so that a load balancer or a client tries another node, and not refused.
	setNoLocal = prefix4 + "NO-LOCAL"
	// setNoLocalOutside holds those whose traffic policy leaves no endpoint for clients outside of the cluster only.
	setNoLocalOutside = prefix4 + "NO-LOCAL-OUTSIDE"
)

// maxElem is the capacity of each set. ipset's own default, 65536, is 40 external IPs with 1,700 ports; memory is
// used per entry, not per capacity.
const maxElem = 1 << 20

// The names of sets in the kernel begin with these. Both families share one name space there; the form for IPv6 follows
// kube-proxy (KUBE-6-...).
const (
	prefix4 = "KUBE-HOP-"
	prefix6 = "KUBE-HOP-6-"
)

// setName returns a set's name in a family. That of IPv4 is asked for most, and needs no memory.
func setName(f lb.Family, name string) string {
	if f == lb.IPv6 {
		return prefix6 + strings.TrimPrefix(name, prefix4)
	}
	return name
}

// Sets returns the sets of one family.
func Sets(f lb.Family) []iptables.Set {
	fam := iptables.Family(f)
	var out []iptables.Set
	for _, s := range []struct {
		name string
		typ  iptables.SetType
	}{
		{setServed, iptables.HashIPPort},
		{setExternal, iptables.HashIPPort},
		{setExternalLocal, iptables.HashIPPort},
		{setVIP, iptables.HashNet},
		{setClusterIP, iptables.HashNet},
		{setOwn, iptables.HashNet},
		{setGone, iptables.HashNet},
		{setGonePort, iptables.HashIPPort},
		{setHealth, iptables.HashIPPort},
		{setRanged, iptables.HashIPPort},
		{setRange, iptables.HashIPPortNet},
		{setNoLocal, iptables.HashIPPort},
		{setNoLocalOutside, iptables.HashIPPort},
	} {
		out = append(out, iptables.Set{Name: setName(f, s.name), Type: s.typ, Family: fam, MaxElem: maxElem})
	}
	return out
}

// member is one entry of one set, wanted or present.
type member struct {
	set   string
	entry iptables.Entry
}

func (m member) op(remove bool) iptables.SetOp {
	return iptables.SetOp{Delete: remove, Set: m.set, Entry: m.entry}
}

func keyMember(k ipvs.Key, name string) member {
	return member{
		set:   setName(lb.FamilyOf(k.Addr), name),
		entry: iptables.Entry{Prefix: host(k.Addr), Proto: uint8(k.Proto), Port: k.Port},
	}
}

// loopbackMember is not in a set of netfilter's, but is one of a table with the same form.
func loopbackMember(k ipvs.Key) member {
	m := keyMember(k, "")
	m.set = loopback.SetName
	return m
}

func rangeMember(k ipvs.Key, from netip.Prefix) member {
	m := keyMember(k, setRange)
	m.entry.Net = from
	return m
}

func prefixMember(p netip.Prefix, name string) member {
	return member{set: setName(lb.FamilyOf(p.Addr()), name), entry: iptables.Entry{Prefix: p}}
}

// masqueradeSet names the set that a frontend's masquerade class needs; ClusterIPs are told by their address alone.
func (f Frontend) masqueradeSet() string {
	switch f.Masquerade {
	case MasqueradeAlways:
		return setExternal
	case MasqueradeNode:
		return setExternalLocal
	default:
		return ""
	}
}
