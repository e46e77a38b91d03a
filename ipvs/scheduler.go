package ipvs

import "slices"

// Schedulers returns the kernel's schedulers that can be used. Source: net/netfilter/ipvs/ip_vs_*.c, Linux 6.12. Left out is
// dh: it chooses by the destination's address, which is the same for all connections of a virtual server, so that all go
// to one real server, and to none while that one drains.
func Schedulers() []string {
	return []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"}
}

// HasScheduler reports whether a scheduler is one of Schedulers.
func HasScheduler(name string) bool { return slices.Contains(Schedulers(), name) }
