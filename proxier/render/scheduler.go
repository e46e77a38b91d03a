package render

import (
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// schedulerConfig returns how the virtual servers of a Service choose.
func schedulerConfig(s lb.Service, cfg Config) ipvs.Config {
	c := ipvs.Config{Scheduler: s.Scheduler, Persistence: s.Affinity}
	if c.Scheduler == "" {
		c.Scheduler = cfg.Scheduler
	}
	asked := func(f lb.SchedulerFlags) bool { return s.SchedulerFlags&f != 0 }
	switch c.Scheduler { // both always with fallback: else clients whose hash leads to a draining endpoint are refused
	case "sh":
		c.Flags |= ipvs.FlagSched1
		if asked(lb.HashPort) {
			c.Flags |= ipvs.FlagSched2
		}
	case "mh":
		c.Flags |= ipvs.FlagSched1
		// kube-proxy's mh looks at the port, so this is what an annotation has to change.
		if asked(lb.HashPort) || !asked(lb.SchedulerFlagsSet) {
			c.Flags |= ipvs.FlagSched2
		}
	}
	if asked(lb.OnePacket) {
		c.Flags |= ipvs.FlagOnePacket
	}
	return c
}

// viewConfig is the configuration of a virtual server that is found by mark. A persistent one of these would send
// connections to the port that the client asked for, and not to the real server's (ip_vs_sched_persist in
// ip_vs_core.c). So affinity is by a hash of the client's address, which moves as few clients as can be when endpoints
// change.
func viewConfig(c ipvs.Config) ipvs.Config {
	if c.Persistence > 0 {
		return ipvs.Config{Scheduler: "mh", Flags: ipvs.FlagSched1} // mh-fallback: never to one that drains
	}
	return c
}

// realServers returns endpoints as real servers with their weights. When the rules leave no endpoint with a weight,
// all get the same: a Service that has endpoints is never without by a rule.
func (r *serviceRenderer) realServers(eps []Endpoint) []ipvs.RealServer {
	if len(eps) == 0 {
		return nil
	}
	out := make([]ipvs.RealServer, len(eps))
	sum := 0
	for i, e := range eps {
		out[i] = ipvs.RealServer{Dest: ipvs.Dest{Addr: e.Addr, Port: e.Port}, Weight: weight(r.service.Weights, e, r.facts)}
		sum += out[i].Weight
	}
	if sum > 0 {
		return out
	}
	for i := range out {
		out[i].Weight = 1
	}
	return out
}

// weight returns the weight that the first matching rule gives to an endpoint, 1 if none matches.
func weight(rules []lb.WeightRule, e Endpoint, facts Facts) int {
	for _, r := range rules {
		if matches(r, e, facts) {
			return r.Weight
		}
	}
	return 1
}

func matches(r lb.WeightRule, e Endpoint, facts Facts) bool {
	switch r.Kind {
	case lb.WeightLocal:
		return facts.Node.Name != "" && e.NodeName == facts.Node.Name
	case lb.WeightZone:
		return e.Zone == r.Value
	case lb.WeightNodeLabel:
		value, ok := facts.NodeLabels[e.NodeName][r.Key]
		return ok && value == r.Value
	default:
		return true
	}
}

// NoWeights reports whether a Service has ready endpoints of which its rules give a weight to none, so that all got
// the same. Its owner should know.
func NoWeights(s lb.Service, slicesOf []lb.EndpointSlice, facts Facts) bool {
	if len(s.Weights) == 0 {
		return false
	}
	for _, port := range s.Ports {
		for _, a := range s.ClusterIPs {
			views := Select(endpointsOf(slicesOf, lb.FamilyOf(a), port), facts.Node)
			if allZero(views.Cluster, s.Weights, facts) || s.ExternalLocal && allZero(views.Local, s.Weights, facts) {
				return true
			}
		}
	}
	return false
}

func allZero(eps []Endpoint, rules []lb.WeightRule, facts Facts) bool {
	for _, e := range eps {
		if weight(rules, e, facts) > 0 {
			return false
		}
	}
	return len(eps) > 0
}
