package lb

import "net/netip"

// Sink takes what a source (API server, folder of YAML files) knows. Calls may come from several goroutines and
// must not block for long. Set replaces an object of the same name; deleting an unknown object is fine.
type Sink interface {
	SetService(Service)
	DeleteService(Name)
	SetEndpointSlice(EndpointSlice)
	DeleteEndpointSlice(Name)
	// SetNode is called with every change of this node's Node object, and with the zero Node when it is deleted.
	SetNode(Node)
	// SetNodeLabels says what labels any Node of the cluster has, nil for one that is gone. It is called only while a
	// Service's weights look at labels of nodes.
	SetNodeLabels(node string, labels map[string]string)
	// SetServiceCIDRs replaces the ranges from which ClusterIPs are allocated; empty when unknown.
	SetServiceCIDRs([]netip.Prefix)
	// Synced says that everything that existed at the start was handed over. Before it nothing is programmed.
	Synced()
}
