package nftablestest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/kube-hop/kube-hop/nftables"
)

var _ nftables.Tables = (*Fake)(nil)

// Fake is tables in memory. It is safe for concurrent use.
type Fake struct {
	mu     sync.Mutex
	tables map[tableID]*fakeTable
	// generation counts what changed something; the kernel does not count what changes nothing either.
	generation uint32
	dumps      int
}

type tableID struct {
	family nftables.Family
	name   string
}

type fakeTable struct {
	sets     map[string]nftables.Set
	elements map[string]map[nftables.Key]uint32
	chains   map[string]nftables.Chain
}

// NewFake returns a namespace without tables.
func NewFake() *Fake { return &Fake{tables: map[tableID]*fakeTable{}} }

// Flush deletes the rules of a chain, as a person with the nft command might.
func (f *Fake) Flush(family nftables.Family, table, chain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[tableID{family, table}]
	c := t.chains[chain]
	c.Rules = nil
	f.generation++
	t.chains[chain] = c
}

// Clear empties a set.
func (f *Fake) Clear(set nftables.SetID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.tables[tableID{set.Family, set.Table}].elements[set.Name])
	f.generation++
}

// Chains returns the names of a table's chains, in order.
func (f *Fake) Chains(family nftables.Family, table string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.tables[tableID{family, table}]; t != nil {
		return slices.Sorted(maps.Keys(t.chains))
	}
	return nil
}

// Elements returns how many elements a set has.
func (f *Fake) Elements(set nftables.SetID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.tables[tableID{set.Family, set.Table}]; t != nil {
		return len(t.elements[set.Name])
	}
	return 0
}

// Dumps returns how often Dump was called.
func (f *Fake) Dumps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dumps
}

// Generation implements nftables.Tables.
func (f *Fake) Generation(ctx context.Context) (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("nftables: generation: %w", err)
	}
	return f.generation, nil
}

// Ensure implements nftables.Tables.
func (f *Fake) Ensure(ctx context.Context, want []nftables.Table) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var repaired []string
	var errs []error
	for _, t := range want {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("nftables: table %s %s: %w", t.Family, t.Name, err))
			continue
		}
		repaired = append(repaired, f.ensure(t)...)
	}
	if len(repaired) > 0 {
		f.generation++
	}
	return repaired, errors.Join(errs...)
}

func (f *Fake) ensure(want nftables.Table) (repaired []string) {
	differ := func(format string, args ...any) {
		repaired = append(repaired, fmt.Sprintf("%s %s: %s", want.Family, want.Name, fmt.Sprintf(format, args...)))
	}
	id := tableID{want.Family, want.Name}
	have := f.tables[id]
	for _, s := range want.Sets {
		if have != nil && have.sets[s.Name].Key != 0 && have.sets[s.Name] != s {
			differ("set %s has another type", s.Name)
			have = nil
		}
	}
	if have == nil {
		have = &fakeTable{map[string]nftables.Set{}, map[string]map[nftables.Key]uint32{}, map[string]nftables.Chain{}}
		f.tables[id] = have
	}
	for _, s := range want.Sets {
		if _, ok := have.sets[s.Name]; !ok {
			differ("set %s is missing", s.Name)
			have.sets[s.Name], have.elements[s.Name] = s, map[nftables.Key]uint32{}
		}
	}
	others := maps.Clone(have.chains)
	for _, c := range want.Chains {
		delete(others, c.Name)
		switch is, ok := have.chains[c.Name]; {
		case !ok && c.IfThere:
			continue
		case !ok:
			differ("chain %s is missing", c.Name)
		case is.Hook != c.Hook || is.Priority != c.Priority || is.NAT != c.NAT:
			differ("chain %s is at another hook or priority, or of another type", c.Name)
		case !reflect.DeepEqual(is.Rules, c.Rules):
			differ("chain %s has other rules", c.Name)
		}
		have.chains[c.Name] = c
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		differ("chain %s is not needed", name)
		delete(have.chains, name)
	}
	return repaired
}

// Dump implements nftables.Tables.
func (f *Fake) Dump(ctx context.Context, of []nftables.Table) (nftables.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dumps++
	state := nftables.State{}
	for _, t := range of {
		for _, s := range t.Sets {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("nftables: list %s: %w", t.ID(s.Name), err)
			}
			if have := f.tables[tableID{t.Family, t.Name}]; s.Learned == 0 && have != nil && have.elements[s.Name] != nil {
				state[t.ID(s.Name)] = maps.Clone(have.elements[s.Name])
			}
		}
	}
	return state, nil
}

// Holds implements nftables.Tables.
func (f *Fake) Holds(ctx context.Context, set nftables.SetID, keys ...nftables.Key) (map[nftables.Key]bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	holds := map[nftables.Key]bool{}
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return holds, fmt.Errorf("nftables: look for elements of %s: %w", set, err)
		}
		holds[k] = false
		if t := f.tables[tableID{set.Family, set.Table}]; t != nil {
			_, holds[k] = t.elements[set.Name][k]
		}
	}
	return holds, nil
}

// Apply implements nftables.Tables.
func (f *Fake) Apply(ctx context.Context, ops []nftables.Op) []*nftables.OpError {
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed []*nftables.OpError
	for _, op := range ops {
		err := ctx.Err()
		if err == nil {
			err = f.apply(op)
		}
		if err != nil {
			failed = append(failed, &nftables.OpError{Op: op, Err: err})
		}
	}
	return failed
}

func (f *Fake) apply(op nftables.Op) error {
	if err := op.Check(); err != nil {
		return err
	}
	var elements map[nftables.Key]uint32
	var set nftables.Set
	if t := f.tables[tableID{op.Set.Family, op.Set.Table}]; t != nil {
		elements, set = t.elements[op.Set.Name], t.sets[op.Set.Name]
	}
	switch {
	case elements == nil && op.Delete:
		return nil
	case elements == nil:
		return nftables.ErrNoSet
	case op.Key.Type() != set.Key || !op.Delete && (set.Value != 0) != (op.Mark != 0):
		return nftables.ErrElement
	}
	mark, present := elements[op.Key]
	if op.Delete {
		delete(elements, op.Key)
	} else {
		elements[op.Key] = op.Mark
	}
	if present == op.Delete || mark != op.Mark && !op.Delete {
		f.generation++
	}
	return nil
}

// Remove implements nftables.Tables.
func (f *Fake) Remove(ctx context.Context, tables []nftables.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range tables {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("nftables: table %s %s: %w", t.Family, t.Name, err)
		}
		if _, present := f.tables[tableID{t.Family, t.Name}]; present {
			f.generation++
		}
		delete(f.tables, tableID{t.Family, t.Name})
	}
	return nil
}
