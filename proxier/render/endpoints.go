package render

import (
	"slices"

	"github.com/kube-hop/kube-hop/lb"
)

// Endpoint is one endpoint of one service port: an lb.Endpoint, which is shared with its slice and never changed, with
// the port number that the slice gives it.
type Endpoint struct {
	*lb.Endpoint
	Port uint16
}

// Compare orders endpoints by address and port, the order of real servers.
func (e Endpoint) Compare(o Endpoint) int {
	if c := e.Addr.Compare(o.Addr); c != 0 {
		return c
	}
	return int(e.Port) - int(o.Port)
}

// endpointsOf returns the endpoints of a service port in one family: those of all slices whose port has the same
// name and protocol (never the same number), sorted, each address and port once. Of duplicates the one that is not
// terminating wins, so that a pod that moves from slice to slice is never taken for a leaving one.
func endpointsOf(slicesOf []lb.EndpointSlice, family lb.Family, port lb.ServicePort) []Endpoint {
	var out []Endpoint
	for i := range slicesOf {
		s := &slicesOf[i]
		if s.Family != family {
			continue
		}
		for _, p := range s.Ports {
			if p.Name != port.Name || p.Proto != port.Proto {
				continue
			}
			out = slices.Grow(out, len(s.Endpoints))
			for j := range s.Endpoints {
				out = append(out, Endpoint{Endpoint: &s.Endpoints[j], Port: p.Port})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Endpoint) int {
		if c := a.Compare(b); c != 0 {
			return c
		}
		return preference(b.Endpoint) - preference(a.Endpoint)
	})
	return slices.CompactFunc(out, func(a, b Endpoint) bool { return a.Compare(b) == 0 })
}

// preference ranks duplicates of one address and port: the higher is kept.
func preference(e *lb.Endpoint) int {
	rank := 0
	if !e.Terminating {
		rank += 4
	}
	if e.Ready {
		rank += 2
	}
	if e.Serving {
		rank++
	}
	return rank
}

// Views are the endpoints of a service port as its two kinds of traffic policy see them.
type Views struct {
	// Cluster are the endpoints for policy Cluster: the ready ones that topology hints leave, or, if none is ready
	// anywhere, all that are terminating but still serving (KEP-1669).
	Cluster []Endpoint
	// Local are the endpoints on this node for policy Local, decided apart from Cluster; hints do not apply.
	Local []Endpoint
	// Any reports whether there is a usable endpoint anywhere in the cluster.
	Any bool
}

// Select decides which endpoints may be chosen, following kube-proxy's CategorizeEndpoints.
func Select(eps []Endpoint, node lb.Node) Views {
	ready := filter(eps, func(e Endpoint) bool { return e.Ready })
	leaving := filter(eps, func(e Endpoint) bool { return !e.Ready && e.Serving && e.Terminating })
	here := func(e Endpoint) bool { return node.Name != "" && e.NodeName == node.Name }

	v := Views{Any: len(ready)+len(leaving) > 0}
	if len(ready) > 0 {
		v.Cluster = nearest(ready, node)
	} else {
		v.Cluster = leaving
	}
	v.Local = filter(ready, here)
	if len(v.Local) == 0 {
		v.Local = filter(leaving, here)
	}
	return v
}

// nearest applies topology hints to the ready endpoints: node hints if all have some and one names this node, else
// zone hints by the same rule, else none. One endpoint without a hint means the hints are incomplete, and following
// them could overload what they do name (KEP-2433, KEP-3015).
func nearest(ready []Endpoint, node lb.Node) []Endpoint {
	if out := hinted(ready, node.Name, func(e Endpoint) []string { return e.HintNodes }); len(out) > 0 {
		return out
	}
	if out := hinted(ready, node.Zone, func(e Endpoint) []string { return e.HintZones }); len(out) > 0 {
		return out
	}
	return ready
}

func hinted(ready []Endpoint, want string, hints func(Endpoint) []string) []Endpoint {
	if want == "" || slices.ContainsFunc(ready, func(e Endpoint) bool { return len(hints(e)) == 0 }) {
		return nil
	}
	return filter(ready, func(e Endpoint) bool { return slices.Contains(hints(e), want) })
}

// filter returns the endpoints to keep. Mostly that is all of them, and then the same slice.
func filter(eps []Endpoint, keep func(Endpoint) bool) []Endpoint {
	other := slices.IndexFunc(eps, func(e Endpoint) bool { return !keep(e) })
	if other < 0 {
		return eps
	}
	out := eps[:other:other]
	for _, e := range eps[other:] {
		if keep(e) {
			out = append(out, e)
		}
	}
	return out
}
