// Package bench measures kube-hop beside kube-proxy on one real kernel: the same API server, the same stored objects and
// the same changes for every subject. hack/bench runs it, in a guest of its own for each subject, and makes
// docs/benchmarks.md out of the results. It is built as a test for the sake of its surroundings and judges nothing: a
// subject that is slow is a result, and only one that cannot be measured is an error.
//
// # The load
//
// n Services with ten endpoints each, and one more whose endpoint is a pod that answers. The API server is slow at
// creating objects, so TestStore does it once for each n, on the machine that builds and not in the guest, and keeps what
// etcd stored; every run begins with a copy.
//
// # The data path
//
// What rules add to the time of a connection is less than two measurements in an emulated guest differ by. So the
// instructions are counted too (hack/bench path), in a guest with one processor whose clock goes by them.
//
// # Floors
//
// Beside each figure stands, where there is one, what cannot be undercut: the same kernel objects by bare netlink, and a process
// that only hears of the objects and of their changes (onlywatch), by the same informers.
//
// # How the kernel is watched
//
// Nothing of a subject's own is believed but its word that its first sync is done, which is then checked for every
// Service. Whether the kernel holds a change is asked from the kernel over netlink, for the one Service that changed: for
// IPVS the real servers of its virtual server, for nf_tables the rule of its chain and the elements of the map in that
// rule. A process of its own (clock) notes when the API server has delivered the change to anybody, since this one is too
// busy with changes to hear of them in time; what is beyond that is the subject's.
package bench
