package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/nftables"
)

// Desired returns the state that the model wants, by planning and recording the operations that lead from nothing to
// it: what is printed is what the daemon would program.
func Desired(m *Model) State {
	st := NewState()
	st.Record(Diff(m, st, m.Everything(st))...)
	return st
}

// Text prints a state: virtual servers as ipvsadm -Ln lists them, then bound prefixes, then set entries. The same
// state gives the same bytes.
func (s State) Text() string {
	var b strings.Builder
	for _, k := range sortedMapKeys(s.IPVS.Virtual, ipvs.Key.Compare) {
		v := s.IPVS.Virtual[k]
		fmt.Fprintf(&b, "%s %s\n", k, v.Config)
		for _, r := range v.Real {
			fmt.Fprintf(&b, "  %s masq weight=%d\n", r.Dest, r.Weight)
		}
	}
	bound := func(what string, source netip.Addr) {
		fmt.Fprintf(&b, "local %s", what)
		if source.IsValid() {
			fmt.Fprintf(&b, " source %s", source)
		}
		b.WriteByte('\n')
	}
	for _, p := range sortedMapKeys(s.IPVS.Bound, comparePrefix) {
		bound(p.String(), s.IPVS.Bound[p])
	}
	for _, k := range sortedMapKeys(s.IPVS.Ports, ipvs.Key.Compare) {
		bound(k.String(), s.IPVS.Ports[k])
	}
	for _, set := range sortedMapKeys(s.Sets, strings.Compare) {
		for _, e := range sortedMapKeys(s.Sets[set], iptables.Entry.Compare) {
			fmt.Fprintf(&b, "set %s %s\n", set, e)
		}
	}
	for _, set := range sortedMapKeys(s.NFT, compareSetID) {
		for _, k := range sortedMapKeys(s.NFT[set], nftables.Key.Compare) {
			fmt.Fprintf(&b, "nft %s %s %s\n", set.Family, set.Name, s.elementText(set, k))
		}
	}
	return b.String()
}

func compareSetID(a, b nftables.SetID) int {
	return cmp.Or(cmp.Compare(a.Family, b.Family), strings.Compare(a.Name, b.Name))
}

// elementText prints marks in decimal, as ipvsadm prints those of virtual servers.
func (s State) elementText(set nftables.SetID, k nftables.Key) string {
	if k.Mark != 0 {
		return fmt.Sprintf("FWM %d", k.Mark)
	}
	if mark := s.NFT[set][k]; mark != 0 {
		return fmt.Sprintf("%s : FWM %d", k, mark)
	}
	return k.String()
}

func sortedMapKeys[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, compare)
	return out
}

// jsonState is the form of a state in JSON. Its field names are an interface: scripts read them.
type jsonState struct {
	VirtualServers []jsonVirtual       `json:"virtualServers"`
	Local          []jsonBound         `json:"local"`
	LocalPorts     []jsonPort          `json:"localPorts"`
	Sets           map[string][]string `json:"sets"`
	NFTables       map[string][]string `json:"nftables"`
}

type jsonVirtual struct {
	Address     netip.Addr `json:"address"`
	Port        uint16     `json:"port"`
	Protocol    string     `json:"protocol"`
	FWMark      uint32     `json:"fwmark,omitempty"`
	Scheduler   string     `json:"scheduler"`
	Persistence int        `json:"persistenceSeconds,omitempty"`
	Flags       string     `json:"flags,omitempty"`
	RealServers []jsonReal `json:"realServers"`
}

type jsonReal struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	Weight  int        `json:"weight"`
}

type jsonBound struct {
	Prefix netip.Prefix `json:"prefix"`
	Source string       `json:"source,omitempty"`
}

type jsonPort struct {
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"`
	Source   string     `json:"source,omitempty"`
}

// sourceText prints a source, empty for one that the kernel chooses.
func sourceText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// MarshalJSON prints the state as JSON, in the order of Text.
func (s State) MarshalJSON() ([]byte, error) {
	out := jsonState{VirtualServers: []jsonVirtual{}, Local: []jsonBound{}, LocalPorts: []jsonPort{}, Sets: map[string][]string{}, NFTables: map[string][]string{}}
	for _, k := range sortedMapKeys(s.IPVS.Virtual, ipvs.Key.Compare) {
		v := s.IPVS.Virtual[k]
		j := jsonVirtual{
			Address: k.Addr, Port: k.Port, Protocol: k.Proto.String(), FWMark: k.Mark, Scheduler: v.Scheduler,
			Persistence: int(v.Persistence.Seconds()), Flags: v.Flags.String(), RealServers: []jsonReal{},
		}
		for _, r := range v.Real {
			j.RealServers = append(j.RealServers, jsonReal{r.Addr, r.Port, r.Weight})
		}
		out.VirtualServers = append(out.VirtualServers, j)
	}
	for _, p := range sortedMapKeys(s.IPVS.Bound, comparePrefix) {
		out.Local = append(out.Local, jsonBound{Prefix: p, Source: sourceText(s.IPVS.Bound[p])})
	}
	for _, k := range sortedMapKeys(s.IPVS.Ports, ipvs.Key.Compare) {
		out.LocalPorts = append(out.LocalPorts, jsonPort{k.Addr, k.Port, k.Proto.String(), sourceText(s.IPVS.Ports[k])})
	}
	for set, entries := range s.Sets {
		list := []string{}
		for _, e := range sortedMapKeys(entries, iptables.Entry.Compare) {
			list = append(list, e.String())
		}
		out.Sets[set] = list
	}
	for set, elements := range s.NFT {
		list := []string{}
		for _, k := range sortedMapKeys(elements, nftables.Key.Compare) {
			list = append(list, s.elementText(set, k))
		}
		out.NFTables[set.String()] = list
	}
	text, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("state as JSON: %w", err)
	}
	return text, nil
}
