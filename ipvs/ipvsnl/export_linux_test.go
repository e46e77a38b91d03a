package ipvsnl

import (
	libipvs "github.com/moby/ipvs"
)

// WithoutOptions makes the Table read everything by netlink, as where the kernel does not answer getsockopt.
func (t *Table) WithoutOptions() {
	if t.options != nil {
		_ = t.options.close()
	}
	t.options = nil
}

// HasOptions reports whether the Table reads by getsockopt.
func (t *Table) HasOptions() bool { return t.options != nil }

// Union is how the results of two listings are put together, as numbers of virtual servers.
func Union(a, b []libipvs.Service) int { return len(union(a, b)) }
