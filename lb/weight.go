package lb

import "slices"

// WeightRule gives a weight to the endpoints of a Service that it matches.
type WeightRule struct {
	Kind WeightKind
	// Key is the label of WeightNodeLabel, else empty.
	Key string
	// Value is the zone of WeightZone, the label's value of WeightNodeLabel, else empty.
	Value string
	// Weight is 0 to 65535; 0 means no new connections.
	Weight int
}

// WeightKind is what a rule looks at.
type WeightKind uint8

// The kinds of rule.
const (
	// WeightLocal matches endpoints on this node.
	WeightLocal WeightKind = iota + 1
	// WeightZone matches endpoints by their zone.
	WeightZone
	// WeightNodeLabel matches endpoints by a label of the Node that they are on.
	WeightNodeLabel
	// WeightDefault matches every endpoint.
	WeightDefault
)

// SchedulerFlags are what a Service asks of its scheduler.
type SchedulerFlags uint8

// The flags. Those of a scheduler that is not the Service's have no effect.
const (
	// HashPort: the schedulers sh and mh look at the client's port too, so that a client is not bound to one endpoint.
	HashPort SchedulerFlags = 1 << iota
	// OnePacket: each datagram is scheduled on its own. For Services with UDP ports only and without affinity.
	OnePacket
	// SchedulerFlagsSet: flags were asked for, so those that are not set are not wanted.
	SchedulerFlagsSet
)

// WeighsByNode reports whether the weights of a Service look at labels of nodes.
func (s Service) WeighsByNode() bool {
	return slices.ContainsFunc(s.Weights, func(r WeightRule) bool { return r.Kind == WeightNodeLabel })
}
