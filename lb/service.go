package lb

import (
	"net/netip"
	"slices"
	"time"
)

// Service is what one Kubernetes Service asks of a node. Services that no proxy serves (headless, ExternalName,
// other service-proxy-name) never become one.
type Service struct {
	Name Name
	// UID is the object's UID; events refer to it. It does not influence the data path.
	UID string
	// Created is the creation time in seconds since 1970. Of two Services that claim one frontend the older wins.
	Created int64

	// ClusterIPs holds at most one address per family. A family without one has no frontend at all.
	ClusterIPs []netip.Addr
	// ExternalIPs is spec.externalIPs, valid entries only.
	ExternalIPs []netip.Addr
	// LoadBalancerIPs is status.loadBalancer.ingress, entries with ipMode VIP (or none) only.
	LoadBalancerIPs []netip.Addr
	// SourceRanges is spec.loadBalancerSourceRanges, valid entries only. Empty for a family: no restriction.
	SourceRanges []netip.Prefix

	Ports []ServicePort

	// InternalLocal is internalTrafficPolicy: Local.
	InternalLocal bool
	// ExternalLocal is externalTrafficPolicy: Local, for the Service types for which it counts.
	ExternalLocal bool
	// Affinity is the ClientIP affinity timeout, whole seconds, 1 s to 86400 s; zero means no affinity.
	Affinity time.Duration
	// HealthCheckNodePort is zero unless the Service is a LoadBalancer with externalTrafficPolicy: Local.
	HealthCheckNodePort uint16
	// Scheduler is the IPVS scheduler asked for by annotation; empty means the node's default.
	Scheduler string
	// SchedulerFlags are the flags asked for by annotation.
	SchedulerFlags SchedulerFlags
	// LocalListener leaves a ClusterIP to the node while the node has it on an interface, for a cache in front of the
	// Service such as NodeLocal DNSCache.
	LocalListener bool
	// Weights give endpoints their weight; the first that matches counts, without one it is 1.
	Weights []WeightRule
}

// ServicePort is one port of a Service.
type ServicePort struct {
	// Name is empty for the only port of a Service.
	Name  string
	Proto Proto
	Port  uint16
	// NodePort is zero if there is none.
	NodePort uint16
}

// Equal reports whether both ask for the same thing.
func (s Service) Equal(o Service) bool {
	return s.Name == o.Name && s.UID == o.UID && s.Created == o.Created &&
		slices.Equal(s.ClusterIPs, o.ClusterIPs) &&
		slices.Equal(s.ExternalIPs, o.ExternalIPs) &&
		slices.Equal(s.LoadBalancerIPs, o.LoadBalancerIPs) &&
		slices.Equal(s.SourceRanges, o.SourceRanges) &&
		slices.Equal(s.Ports, o.Ports) &&
		s.InternalLocal == o.InternalLocal && s.ExternalLocal == o.ExternalLocal &&
		s.Affinity == o.Affinity && s.HealthCheckNodePort == o.HealthCheckNodePort && s.Scheduler == o.Scheduler &&
		s.SchedulerFlags == o.SchedulerFlags && s.LocalListener == o.LocalListener && slices.Equal(s.Weights, o.Weights)
}

// ClusterIP returns the cluster IP of a family.
func (s Service) ClusterIP(f Family) (netip.Addr, bool) {
	for _, a := range s.ClusterIPs {
		if FamilyOf(a) == f {
			return a, true
		}
	}
	return netip.Addr{}, false
}
