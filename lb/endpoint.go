package lb

import (
	"net/netip"
	"slices"
	"time"
)

// EndpointSlice is one EndpointSlice object, with what a proxy does not use left out.
type EndpointSlice struct {
	Name Name
	// Service owns the slice (label kubernetes.io/service-name).
	Service   Name
	Family    Family
	Ports     []EndpointPort
	Endpoints []Endpoint
	// Triggered is when the change happened that the slice follows, such as a pod that became ready; zero if unknown. It
	// is for measuring, and Equal does not look at it.
	Triggered time.Time
}

// EndpointPort is one port of a slice. It belongs to the Service port of the same name and protocol; the number
// may differ from slice to slice.
type EndpointPort struct {
	Name  string
	Proto Proto
	Port  uint16
}

// Endpoint is one address of a slice with its conditions resolved: nil ready means ready, nil serving means
// serving, nil terminating means not terminating (discovery/v1 EndpointConditions).
type Endpoint struct {
	Addr     netip.Addr
	NodeName string
	Zone     string

	Ready, Serving, Terminating bool

	// HintZones and HintNodes are the topology hints (discovery/v1 EndpointHints); nil when there are none.
	HintZones, HintNodes []string
}

// Equal reports whether both endpoints are the same in every respect.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.Addr == o.Addr && e.NodeName == o.NodeName && e.Zone == o.Zone &&
		e.Ready == o.Ready && e.Serving == o.Serving && e.Terminating == o.Terminating &&
		slices.Equal(e.HintZones, o.HintZones) && slices.Equal(e.HintNodes, o.HintNodes)
}

// Equal reports whether both slices say the same.
func (s EndpointSlice) Equal(o EndpointSlice) bool {
	return s.Name == o.Name && s.Service == o.Service && s.Family == o.Family &&
		slices.Equal(s.Ports, o.Ports) && slices.EqualFunc(s.Endpoints, o.Endpoints, Endpoint.Equal)
}
