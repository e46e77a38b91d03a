// Package informers turns what Kubernetes says into the model of package lb. It has two sources, both of which end
// in an [lb.Sink]: [API] watches an API server, [Folder] watches a folder of YAML and JSON files.
//
// Between them and the model stand pure conversions ([FromService], [FromEndpointSlice], [FromNode],
// [FromServiceCIDR]). They establish the invariants of package lb, and they decide what becomes of malformed input:
// one bad item is skipped and described by a [Problem], its neighbours are not affected.
//
// The API source keeps no Kubernetes object. The informers' transforms convert an object before it enters the cache,
// so that the cache and the sink share one small value (see record.go).
package informers
