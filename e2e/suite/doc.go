// Package suite holds the end-to-end tests of the daemon: two nodes, pods and an outside client made of network
// namespaces (package testbed), one kube-hop per node that reads a folder of YAML, and real packets on a real kernel.
// The tests have the build tag e2e; KUBE_HOP is the path of the binary.
//
// Tests that leave the cluster as they found it share one, see shared; a test's Services have a name and a number of
// their own, from which all their addresses follow. Tests that stop daemons or damage the kernel's state build their
// own cluster. A change is in force when a marker that was written after it is: see settle.
//
// Each test was seen to fail: e2e/breaks/breaks.txt has at least one way to break the daemon for each of them, and
// make breaks tries them all. A new test needs one too, or the unit tests say so; RUN=NAME make breaks tries that one.
package suite
