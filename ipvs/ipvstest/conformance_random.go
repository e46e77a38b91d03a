package ipvstest

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
)

// random applies sequences of operations and compares the table with the contract, written down once more as a
// function of values.
func random(b *bench) {
	seeds := []uint64{1, 2, 3, rand.Uint64()}
	for _, seed := range seeds {
		b.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated, not secret
		for range 40 {
			before := b.dump() // of an equal state after the first round: this checks that operations are not undone
			var ops, fail []ipvs.Op
			for range r.IntN(20) {
				op := randomOp(r)
				if ops = append(ops, op); !step(&before, op) {
					fail = append(fail, op)
				}
			}
			var failed []ipvs.Op
			for _, err := range b.table.Apply(b.Context(), ops) {
				failed = append(failed, err.Op)
			}
			if !slices.Equal(fail, failed) {
				b.Fatalf("seed %d: of %v\nfailed %v\nwant   %v", seed, ops, failed, fail)
			}
			if d := diff(before, b.dump()); d != "" {
				b.Fatalf("seed %d: after %v (-want +got):\n%s", seed, ops, d)
			}
		}
	}
}

func randomOp(r *rand.Rand) ipvs.Op {
	k := keys()[r.IntN(len(keys()))]
	p := slices.SortedFunc(maps.Keys(prefixes()), netip.Prefix.Compare)[r.IntN(len(prefixes()))]
	op := ipvs.Op{Verb: ipvs.Verb(r.IntN(int(ipvs.Unbind))) + ipvs.AddVirtual} //nolint:gosec // small
	switch op.Verb {
	case ipvs.Bind, ipvs.Unbind:
		op.Prefix = p
		if sources := slices.DeleteFunc(append(Sources(), netip.Addr{}, netip.Addr{}), func(a netip.Addr) bool {
			return a.IsValid() && a.Is4() != p.Addr().Is4()
		}); op.Verb == ipvs.Bind {
			op.Source = sources[r.IntN(len(sources))]
		}
	case ipvs.AddVirtual, ipvs.EditVirtual:
		op.Key = k
		op.Config = ipvs.Config{
			Scheduler:   schedulers[r.IntN(len(schedulers))],
			Persistence: time.Duration(r.IntN(3)) * time.Hour,
			Flags:       ipvs.Flags(r.Uint32()) & ipvs.FlagsAll,
		}
	default:
		op.Key, op.Real = k, weighing(server(k, r.IntN(4)), r.IntN(3))
	}
	return op
}

// step carries out one valid operation on a state of which nobody else holds a part, and reports whether the contract
// lets it succeed.
func step(s *ipvs.State, op ipvs.Op) bool {
	v, present := s.Virtual[op.Key]
	at, found := slices.BinarySearchFunc(v.Real, op.Real.Dest, func(r ipvs.RealServer, d ipvs.Dest) int { return r.Compare(d) })
	switch op.Verb {
	case ipvs.AddVirtual, ipvs.EditVirtual:
		v.Config = op.Config
		s.Virtual[op.Key] = v
	case ipvs.DeleteVirtual:
		delete(s.Virtual, op.Key)
	case ipvs.AddReal, ipvs.EditReal:
		if !present {
			return false
		}
		if found {
			v.Real = slices.Delete(v.Real, at, at+1)
		}
		v.Real = slices.Insert(v.Real, at, op.Real)
		s.Virtual[op.Key] = v
	case ipvs.DeleteReal:
		if found {
			v.Real = slices.Delete(v.Real, at, at+1)
			s.Virtual[op.Key] = v
		}
	case ipvs.Bind:
		s.Bound[op.Prefix] = op.Source
	case ipvs.Unbind:
		delete(s.Bound, op.Prefix)
	default: // ports are not among the steps
	}
	return true
}
