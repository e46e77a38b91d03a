package ipvsnl

import (
	"slices"

	"github.com/kube-hop/kube-hop/ipvs"
)

// SetProcFrom makes Dump read /proc from so many virtual servers on.
func (t *Table) SetProcFrom(n int) { t.procFrom = n }

// HasProc reports whether Dump can read /proc.
func (t *Table) HasProc() bool { return t.proc != nil }

// Missed lists the virtual servers, forgets one of the listing, and returns how many there are and how many are found again,
// with and without /proc.
func (t *Table) Missed() (all, byProc, again int, err error) {
	listed, err := t.vs.GetServices()
	if err != nil {
		return 0, 0, 0, err
	}
	t.procFrom = 0
	known := t.readProc()
	for found, known := range map[*int]map[ipvs.Key][]ipvs.RealServer{&byProc: known, &again: nil} {
		list, err := t.withMissed(slices.Clone(listed[1:]), known)
		if err != nil {
			return 0, 0, 0, err
		}
		*found = len(list)
	}
	return len(listed), byProc, again, nil
}
