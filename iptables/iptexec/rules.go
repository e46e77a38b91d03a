package iptexec

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/kube-hop/kube-hop/iptables"
)

var _ iptables.Rules = (*Rules)(nil)

// Rules is the rules of one family in the network namespace of the thread that calls its methods, which must be the
// same for all calls. Between calls it keeps only what makes Check cheap. It is safe for concurrent use.
type Rules struct {
	tool tool

	mu    sync.Mutex
	clean clean
	seen  seen
}

// clean is what the last Check without differences looked at. While the kernel says that no rule of any program has
// changed since, the answer is still the same, and no process need be started for it.
type clean struct {
	known      bool
	generation uint32
	want       iptables.Ruleset
}

// seen is what a Check with differences found: the Apply that follows need not start another process to see the same.
type seen struct {
	known      bool
	generation uint32
	tables     []string
	have       iptables.RuleState
}

// Open finds the programs of a family and fails if one is missing or too old. It does not look at the kernel, so
// a family that the kernel lacks shows in the methods.
func Open(family iptables.Family) (*Rules, error) {
	return openVariant(family, "")
}

// openVariant opens a certain variant, "legacy" or "nft", or with "" whichever the machine uses.
func openVariant(family iptables.Family, variant string) (*Rules, error) {
	t, err := findTool(family, variant)
	if err != nil {
		return nil, err
	}
	return &Rules{tool: t}, nil
}

// HasRandomFully tells whether the programs know MASQUERADE --random-fully. The kernel has it since 3.14.
func (r *Rules) HasRandomFully() bool { return r.tool.randomFully }

// Check implements iptables.Rules.
func (r *Rules) Check(ctx context.Context, want iptables.Ruleset) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	generation, known := generation() // before looking: what changes meanwhile is found next time
	if known && r.clean.known && generation == r.clean.generation && reflect.DeepEqual(want, r.clean.want) {
		return nil, nil
	}
	r.clean, r.seen = clean{}, seen{}
	have, byNFTables, err := r.tool.save(ctx, want.Tables())
	if err != nil {
		return nil, err
	}
	differences := iptables.Differences(have, want)
	switch {
	case !byNFTables || !known:
	case len(differences) == 0:
		r.clean = clean{known: true, generation: generation, want: want}
	default:
		r.seen = seen{known: true, generation: generation, tables: want.Tables(), have: have}
	}
	return differences, nil
}

// Apply implements iptables.Rules.
func (r *Rules) Apply(ctx context.Context, want iptables.Ruleset) error {
	if err := oneLiners(want); err != nil {
		return err
	}
	todo, err := r.repairs(ctx, want)
	if err != nil || len(todo) == 0 {
		return err
	}
	// All tables at once, since a process costs more than the rules that it reads.
	err = r.tool.restore(ctx, todo...)
	if err == nil || len(todo) == 1 || errors.Is(err, iptables.ErrLocked) || ctx.Err() != nil {
		return err
	}
	// One table was refused. Those before it may be done and those behind it are not: each by itself, so that it keeps
	// only itself from being repaired.
	if todo, err = r.repairs(ctx, want); err != nil {
		return err
	}
	var errs []error
	for _, t := range todo {
		errs = append(errs, r.tool.restore(ctx, t))
	}
	return errors.Join(errs...)
}

// look returns the rules as the last Check saw them if they are so still. It keeps nothing: others may have many.
func (r *Rules) look(ctx context.Context, want iptables.Ruleset) (iptables.RuleState, error) {
	r.mu.Lock()
	last := r.seen
	r.seen = seen{}
	r.mu.Unlock()
	if number, known := generation(); known && last.known && number == last.generation && slices.Equal(want.Tables(), last.tables) {
		return last.have, nil
	}
	have, _, err := r.tool.save(ctx, want.Tables())
	return have, err
}

// repairs returns the input of iptables-restore for each table that is not as wanted.
func (r *Rules) repairs(ctx context.Context, want iptables.Ruleset) ([]input, error) {
	have, err := r.look(ctx, want)
	if err != nil {
		return nil, err
	}
	var out []input
	for _, table := range want.Tables() {
		if text := iptables.Repair(have, want, table); text != "" {
			out = append(out, input{table, text})
		}
	}
	return out, nil
}

// Remove implements iptables.Rules.
func (r *Rules) Remove(ctx context.Context, ours iptables.Ruleset) error {
	have, _, err := r.tool.save(ctx, ours.Tables())
	if err != nil {
		return err
	}
	var errs []error
	for _, table := range ours.Tables() {
		text, left := iptables.Removal(have, ours, table)
		if text == "" {
			continue
		}
		if err := r.tool.restore(ctx, input{table, text}); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, chain := range left {
			errs = append(errs, fmt.Errorf("%s: remove chain %s of table %s: %w",
				r.tool.name, chain, table, iptables.ErrChainInUse))
		}
	}
	return errors.Join(errs...)
}

// oneLiners refuses rules that would read as more than one line of iptables-restore's input.
func oneLiners(want iptables.Ruleset) error {
	var errs []error
	check := func(table, chain string, r iptables.Rule) {
		if strings.ContainsAny(string(r), "\n\r\x00") {
			errs = append(errs, fmt.Errorf("iptables: a rule of chain %s of table %s is more than a line: %q", chain, table, r))
		}
	}
	for _, c := range want.Chains {
		for _, r := range c.Rules {
			check(c.Table, c.Name, r)
		}
	}
	for _, j := range want.Jumps {
		check(j.Table, j.Chain, j.Rule)
	}
	return errors.Join(errs...)
}
