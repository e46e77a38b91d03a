package iptables

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RuleState is the rules by table and chain, as a kernel holds them. A chain without rules is there with none.
type RuleState map[string]map[string][]Rule

// ParseSave reads what iptables-save prints, with or without counters.
func ParseSave(text string) (RuleState, error) {
	state := RuleState{}
	table := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
			if state[table] == nil {
				state[table] = map[string][]Rule{}
			}
			continue
		}
		if line == "COMMIT" {
			table = ""
			continue
		}
		if table == "" {
			return nil, fmt.Errorf("iptables-save: line %d is outside of a table: %q", n, line)
		}
		if err := parseLine(state[table], line); err != nil {
			return nil, fmt.Errorf("iptables-save: line %d: %w: %q", n, err, line)
		}
	}
	return state, nil
}

func parseLine(chains map[string][]Rule, line string) error {
	if head, ok := strings.CutPrefix(line, ":"); ok {
		name, _, ok := strings.Cut(head, " ")
		if !ok || name == "" {
			return errors.New("a chain without name or policy")
		}
		if _, ok := chains[name]; !ok {
			chains[name] = []Rule{}
		}
		return nil
	}
	if line[0] == '[' {
		_, line, _ = strings.Cut(line, "] ")
	}
	rest, ok := strings.CutPrefix(line, "-A ")
	if !ok {
		return errors.New("neither table, chain nor rule")
	}
	chain, rule, _ := strings.Cut(rest, " ")
	if _, ok := chains[chain]; !ok {
		return fmt.Errorf("a rule of chain %q, which was not named before", chain)
	}
	chains[chain] = append(chains[chain], Rule(strings.TrimSpace(rule)))
	return nil
}

// String prints the state as iptables-save does, sorted and with every policy ACCEPT.
func (s RuleState) String() string {
	var b strings.Builder
	for _, table := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "*%s\n", table)
		names := slices.Sorted(maps.Keys(s[table]))
		for _, name := range names {
			fmt.Fprintf(&b, ":%s ACCEPT [0:0]\n", name)
		}
		for _, name := range names {
			for _, r := range s[table][name] {
				b.WriteString(strings.TrimSpace(fmt.Sprintf("-A %s %s", name, r)))
				b.WriteByte('\n')
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
