package iptables

import (
	"fmt"
	"slices"
	"strings"
)

// Differences returns one line for each way in which the kernel's rules are not what is wanted: a chain that is
// missing or has other rules, a jump that is missing, doubled or not where it belongs.
func Differences(have RuleState, want Ruleset) []string {
	var out []string
	for _, c := range want.Chains {
		rules, ok := have[c.Table][c.Name]
		if !ok {
			out = append(out, fmt.Sprintf("%s: chain %s is missing", c.Table, c.Name))
		} else if d := differentRule(rules, c.Rules); d != "" {
			out = append(out, fmt.Sprintf("%s: chain %s: %s", c.Table, c.Name, d))
		}
	}
	for _, top := range want.tops() {
		rules := have[top.table][top.chain]
		for i, jump := range top.jumps {
			where := fmt.Sprintf("%s: %s: jump %q", top.table, top.chain, jump)
			switch at := places(rules, jump); {
			case len(at) == 0:
				out = append(out, where+" is missing")
			case len(at) > 1:
				out = append(out, fmt.Sprintf("%s is there %d times", where, len(at)))
			case at[0] != i:
				out = append(out, fmt.Sprintf("%s stands at place %d instead of %d", where, at[0]+1, i+1))
			}
		}
	}
	return out
}

// differentRule describes the first rule that differs, or returns "".
func differentRule(have, want []Rule) string {
	for i := range max(len(have), len(want)) {
		switch {
		case i >= len(have):
			return fmt.Sprintf("rule %d is missing: %q", i+1, want[i])
		case i >= len(want):
			return fmt.Sprintf("rule %d is too many: %q", i+1, have[i])
		case Canonical(have[i]) != Canonical(want[i]):
			return fmt.Sprintf("rule %d is %q instead of %q", i+1, have[i], want[i])
		}
	}
	return ""
}

// places returns where in a chain a rule stands, counted from 0.
func places(rules []Rule, r Rule) []int {
	var at []int
	want := Canonical(r)
	for i, have := range rules {
		if Canonical(have) == want {
			at = append(at, i)
		}
	}
	return at
}

// top is the jumps that belong at the top of one built-in chain, in order.
type top struct {
	table, chain string
	jumps        []Rule
}

func (r Ruleset) tops() []top {
	var out []top
	for _, j := range r.Jumps {
		i := slices.IndexFunc(out, func(t top) bool { return t.table == j.Table && t.chain == j.Chain })
		if i < 0 {
			i = len(out)
			out = append(out, top{table: j.Table, chain: j.Chain})
		}
		out[i].jumps = append(out[i].jumps, j.Rule)
	}
	return out
}

// Repair returns the input of iptables-restore --noflush that makes one table what is wanted, or "" if it is that
// already. It names only what differs, because the counters of everything named start at zero again.
//
// Jumps are part of it: iptables-restore brings the whole table into force in one step, so that a jump that is
// moved is neither missing nor doubled for any packet. They are deleted by their text and not by their number,
// which might be the number of someone else's rule by the time it is used; then the restore fails instead.
func Repair(have RuleState, want Ruleset, table string) string {
	differing := Ruleset{Family: want.Family}
	for _, c := range want.Chains {
		if rules, ok := have[table][c.Name]; c.Table == table && (!ok || differentRule(rules, c.Rules) != "") {
			differing.Chains = append(differing.Chains, c)
		}
	}
	var moves strings.Builder
	for _, t := range want.tops() {
		if t.table == table {
			moveJumps(&moves, t, have[table][t.chain])
		}
	}
	if len(differing.Chains) == 0 && moves.Len() == 0 {
		return ""
	}
	return strings.TrimSuffix(differing.RestoreText(table), "COMMIT\n") + moves.String() + "COMMIT\n"
}

// moveJumps writes the lines that bring the jumps to the top of their chain. The leading ones that are right stay.
func moveJumps(b *strings.Builder, t top, have []Rule) {
	right := 0
	for right < len(t.jumps) {
		if at := places(have, t.jumps[right]); len(at) != 1 || at[0] != right {
			break
		}
		right++
	}
	for _, jump := range t.jumps[right:] {
		for range places(have, jump) {
			fmt.Fprintf(b, "-D %s %s\n", t.chain, jump)
		}
	}
	for i, jump := range t.jumps[right:] {
		fmt.Fprintf(b, "-I %s %d %s\n", t.chain, right+i+1, jump)
	}
}

// Removal returns the input of iptables-restore --noflush that takes our jumps and chains out of one table, or ""
// if none is there. The chains in left are only emptied, since rules of others refer to them.
func Removal(have RuleState, ours Ruleset, table string) (text string, left []string) {
	var b strings.Builder
	for _, t := range ours.tops() {
		if t.table != table {
			continue
		}
		for _, jump := range t.jumps {
			for range places(have[table][t.chain], jump) {
				fmt.Fprintf(&b, "-D %s %s\n", t.chain, jump)
			}
		}
	}
	used := foreignTargets(have[table], ours, table)
	var drop strings.Builder
	for _, c := range ours.Chains {
		if _, ok := have[table][c.Name]; !ok || c.Table != table {
			continue
		}
		fmt.Fprintf(&b, "-F %s\n", c.Name)
		if used[c.Name] {
			left = append(left, c.Name)
		} else {
			fmt.Fprintf(&drop, "-X %s\n", c.Name) // after every chain is empty, as chains of ours may refer to another
		}
	}
	if b.Len() == 0 {
		return "", nil
	}
	return "*" + table + "\n" + b.String() + drop.String() + "COMMIT\n", left
}

// foreignTargets returns what rules refer to that are neither in our chains nor our jumps.
func foreignTargets(chains map[string][]Rule, ours Ruleset, table string) map[string]bool {
	jumps := map[string]map[Rule]bool{}
	for _, t := range ours.tops() {
		if t.table != table {
			continue
		}
		jumps[t.chain] = map[Rule]bool{}
		for _, j := range t.jumps {
			jumps[t.chain][Canonical(j)] = true
		}
	}
	used := map[string]bool{}
	for name, rules := range chains {
		if slices.ContainsFunc(ours.Chains, func(c Chain) bool { return c.Table == table && c.Name == name }) {
			continue
		}
		for _, r := range rules {
			if !jumps[name][Canonical(r)] {
				used[r.target()] = true
			}
		}
	}
	return used
}
