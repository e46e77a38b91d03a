// Package lb is kube-hop's model of what Kubernetes asks for: Services, their endpoints and the facts of this
// node, as plain immutable values. It knows neither Kubernetes API types nor kernel words: package informers
// translates into it, package proxier/render translates out of it.
//
// Invariants that the edges establish and the core relies on: every netip.Addr is unmapped and without zone,
// every netip.Prefix is masked, names are not empty, and a value that was handed over is never changed again.
package lb
