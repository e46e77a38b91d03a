package iptables

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Rule is one rule's matches and target, without the chain: the text after "-A CHAIN " in iptables-save.
type Rule string

// Chain is a chain that is entirely ours.
type Chain struct {
	Table, Name string
	Rules       []Rule
}

// Jump is a rule of ours in a built-in chain. Jumps stand at the top of it, in the order of the Ruleset.
type Jump struct {
	Table, Chain string
	Rule         Rule
}

// Ruleset is all chains and jumps of one family.
type Ruleset struct {
	Family Family
	Chains []Chain
	Jumps  []Jump
}

// Tables returns the tables that the ruleset has something in, in order of first appearance.
func (r Ruleset) Tables() []string {
	var out []string
	seen := map[string]bool{}
	add := func(t string) {
		if !seen[t] {
			seen[t] = true
			out = append(out, t)
		}
	}
	for _, c := range r.Chains {
		add(c.Table)
	}
	for _, j := range r.Jumps {
		add(j.Table)
	}
	return out
}

// RestoreText returns the input of iptables-restore --noflush that makes one table's chains what they should be.
// Naming a chain flushes it, so chains and rules are replaced in one step; jumps are not part of it, since
// restoring would add them again.
func (r Ruleset) RestoreText(table string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", table)
	for _, c := range r.Chains {
		if c.Table == table {
			fmt.Fprintf(&b, ":%s - [0:0]\n", c.Name)
		}
	}
	for _, c := range r.Chains {
		if c.Table != table {
			continue
		}
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "-A %s %s\n", c.Name, rule)
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// What can be wrong with an operation on rules, for errors.Is.
var (
	// ErrLocked is the answer when another program kept the xtables lock for as long as we waited. Try again.
	ErrLocked = errors.New("another program holds the xtables lock")
	// ErrChainInUse is the answer to removing a chain that someone else's rule refers to.
	ErrChainInUse = errors.New("a rule of another program refers to the chain")
)

// Rules is the chains and rules of one network namespace and family.
type Rules interface {
	// Check compares the kernel with what is wanted and returns one line for each difference: a chain that is
	// missing or has other rules, a jump that is missing, doubled or not where it belongs. It changes nothing.
	Check(ctx context.Context, want Ruleset) ([]string, error)

	// Apply makes the kernel hold what is wanted, table by table, without touching anything of others. A chain is
	// complete before the jump to it exists, and there is no moment in which a wanted rule that was there is
	// missing. Applying what is there already leaves it as it is, counters included.
	Apply(ctx context.Context, want Ruleset) error

	// Remove takes the jumps, then the chains away. Absent ones are fine. A chain that someone else's rule refers
	// to is flushed and left, and reported as an error.
	Remove(ctx context.Context, have Ruleset) error
}
