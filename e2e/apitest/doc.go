// Package apitest tests kube-hop against a real API server and real packets: etcd and kube-apiserver in a network
// namespace of their own on the wire of a testbed, one kube-hop on each of two nodes, with a kubeconfig that has only
// the rights that kube-hop needs.
//
// The start of the API server is most of the time it takes, so all tests share one; each has Services of its own. The
// tests need the build tag e2e, root, a kernel with IPVS, and in the environment
//
//	CONTROLPLANE_BIN  the folder that hack/build-apiserver prints
//	KUBE_HOP          the kube-hop binary
//
// A test first waits until the virtual servers in the nodes' kernels are those it expects, and then asks for answers:
// from then on no request may be lost.
package apitest
