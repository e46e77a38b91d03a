package lb

import (
	"net/netip"
	"slices"
)

// HealthCheck is what load balancers are told at a Service's healthCheckNodePort, in one family: whether this node has
// endpoints to which externalTrafficPolicy Local may send.
type HealthCheck struct {
	Service Name
	Family  Family
	Port    uint16
	// Local counts this node's ready endpoints, by address.
	Local int
	// Addrs are where the server listens; nil for all addresses. Empty but not nil: nowhere.
	Addrs []netip.Addr
}

// Equal reports whether both are the same.
func (h HealthCheck) Equal(o HealthCheck) bool {
	return h.Service == o.Service && h.Family == o.Family && h.Port == o.Port && h.Local == o.Local &&
		(h.Addrs == nil) == (o.Addrs == nil) && slices.Equal(h.Addrs, o.Addrs)
}
