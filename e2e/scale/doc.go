// Package scale measures kube-hop on a node of a large cluster: a real API server with SCALE Services (default
// 10,000) of ten endpoints each, one kube-hop, one kernel. hack/scale runs it. It is a test, because most of what it
// looks at does not depend on the machine: what is in the kernel, and how many operations it took. The times and the
// memory are printed, and not judged.
package scale
