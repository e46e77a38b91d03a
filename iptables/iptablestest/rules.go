package iptablestest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kube-hop/kube-hop/iptables"
)

var _ iptables.Rules = (*FakeRules)(nil)

// FakeRules is the rules of one family in memory. Its other methods are those of another program at the same
// tables. It is safe for concurrent use.
type FakeRules struct {
	mu    sync.Mutex
	state iptables.RuleState
}

// NewFakeRules returns a namespace with the built-in chains of the tables filter, nat, mangle and raw.
func NewFakeRules() *FakeRules {
	f := &FakeRules{state: iptables.RuleState{}}
	for table, chains := range map[string]string{
		"filter": "INPUT FORWARD OUTPUT",
		"nat":    "PREROUTING INPUT OUTPUT POSTROUTING",
		"mangle": "PREROUTING INPUT FORWARD OUTPUT POSTROUTING",
		"raw":    "PREROUTING OUTPUT",
	} {
		f.state[table] = map[string][]iptables.Rule{}
		for c := range strings.FieldsSeq(chains) {
			f.state[table][c] = nil
		}
	}
	return f
}

// Check implements iptables.Rules.
func (f *FakeRules) Check(ctx context.Context, want iptables.Ruleset) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("iptables-save: %w", err)
	}
	return iptables.Differences(f.state, want), nil
}

// Apply implements iptables.Rules. A table is changed as a whole or not at all.
func (f *FakeRules) Apply(ctx context.Context, want iptables.Ruleset) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, table := range want.Tables() {
		err := ctx.Err()
		if err == nil {
			err = f.refuse(table, want)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("iptables-restore: table %s: %w", table, err))
			continue
		}
		f.apply(table, want)
	}
	return errors.Join(errs...)
}

// refuse finds what a kernel would not take: rules that lead to a chain that is not there.
func (f *FakeRules) refuse(table string, want iptables.Ruleset) error {
	exists := func(name string) bool {
		_, ok := f.state[table][name]
		return ok || slices.ContainsFunc(want.Chains, func(c iptables.Chain) bool { return c.Table == table && c.Name == name })
	}
	check := func(r iptables.Rule) error {
		if strings.ContainsAny(string(r), "\n\r\x00") {
			return fmt.Errorf("a rule of more than one line: %q", r)
		}
		if to := jumpsTo(r); to != "" && !isTarget(to) && !exists(to) {
			return fmt.Errorf("no chain or target %q: %q", to, r)
		}
		return nil
	}
	var errs []error
	for _, c := range want.Chains {
		for _, r := range c.Rules {
			if c.Table == table {
				errs = append(errs, check(r))
			}
		}
	}
	for _, j := range want.Jumps {
		if j.Table == table {
			errs = append(errs, check(j.Rule))
		}
	}
	return errors.Join(errs...)
}

func isTarget(name string) bool {
	return slices.Contains(strings.Fields("ACCEPT DROP RETURN REJECT MARK MASQUERADE SET CT NOTRACK LOG DNAT SNAT REDIRECT TPROXY"), name)
}

func jumpsTo(r iptables.Rule) string {
	words := strings.Fields(string(iptables.Canonical(r)))
	for i, w := range words[:max(len(words)-1, 0)] {
		if w == "-j" || w == "-g" {
			return words[i+1]
		}
	}
	return ""
}

func (f *FakeRules) apply(table string, want iptables.Ruleset) {
	for _, c := range want.Chains {
		if c.Table == table {
			f.state[table][c.Name] = slices.Clone(c.Rules)
		}
	}
	at := map[string]int{} // how many jumps stand at the top of each chain
	for _, j := range want.Jumps {
		if j.Table == table {
			rules := without(f.state[table][j.Chain], j.Rule)
			f.state[table][j.Chain] = slices.Insert(rules, at[j.Chain], j.Rule)
			at[j.Chain]++
		}
	}
}

func without(rules []iptables.Rule, r iptables.Rule) []iptables.Rule {
	return slices.DeleteFunc(slices.Clone(rules), func(have iptables.Rule) bool {
		return iptables.Canonical(have) == iptables.Canonical(r)
	})
}

// Remove implements iptables.Rules.
func (f *FakeRules) Remove(ctx context.Context, ours iptables.Ruleset) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("iptables-save: %w", err)
	}
	for _, j := range ours.Jumps {
		if rules, ok := f.state[j.Table][j.Chain]; ok {
			f.state[j.Table][j.Chain] = without(rules, j.Rule)
		}
	}
	for _, c := range ours.Chains {
		if _, ok := f.state[c.Table][c.Name]; ok {
			f.state[c.Table][c.Name] = nil
		}
	}
	var errs []error
	for _, c := range ours.Chains {
		if f.referred(c.Table, c.Name) {
			errs = append(errs, fmt.Errorf("iptables: remove chain %s of table %s: %w", c.Name, c.Table, iptables.ErrChainInUse))
		} else {
			delete(f.state[c.Table], c.Name)
		}
	}
	return errors.Join(errs...)
}

func (f *FakeRules) referred(table, chain string) bool {
	for _, rules := range f.state[table] {
		if slices.ContainsFunc(rules, func(r iptables.Rule) bool { return jumpsTo(r) == chain }) {
			return true
		}
	}
	return false
}

// NewChain makes a chain.
func (f *FakeRules) NewChain(table, chain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state[table][chain] = nil
}

// Insert puts a rule at a place of a chain, counted from 1.
func (f *FakeRules) Insert(table, chain string, place int, r iptables.Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state[table][chain] = slices.Insert(f.state[table][chain], place-1, r)
}

// Delete takes one copy of a rule away.
func (f *FakeRules) Delete(table, chain string, r iptables.Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rules := f.state[table][chain]
	if i := slices.Index(rules, r); i >= 0 {
		f.state[table][chain] = slices.Delete(rules, i, i+1)
	}
}

// Flush takes all rules out of all chains of a table.
func (f *FakeRules) Flush(table string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for chain := range f.state[table] {
		f.state[table][chain] = nil
	}
}

// List returns the rules of a chain, and whether it is there.
func (f *FakeRules) List(table, chain string) ([]iptables.Rule, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rules, ok := f.state[table][chain]
	return slices.Clone(rules), ok
}
