//go:build e2e && linux

package suite

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// view is a tool that shows a part of a node's network state.
type view struct {
	command []string
	sorted  bool // the kernel gives no order
}

var views = []view{
	{[]string{"ipvsadm", "-S", "-n"}, true},
	{[]string{"ipset", "save"}, true},
	{[]string{"iptables-save"}, false},
	{[]string{"ip6tables-save"}, false},
	{[]string{"ip", "-o", "addr", "show"}, false},
	{[]string{"ip", "-4", "route", "show", "table", "all"}, true},
	{[]string{"ip", "-6", "route", "show", "table", "all"}, true},
	{[]string{"ip", "rule", "show"}, false},
}

// Parts of the tools' output that say nothing about the state: comments with times, packet counters, the seed of a
// set's hash, and built-in chains, which iptables makes when somebody looks.
var (
	noise   = regexp.MustCompile(`^#.*|^:(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING) ACCEPT .*`)
	counter = regexp.MustCompile(`\[\d+:\d+\]| initval 0x[0-9a-f]+| bucketsize \d+`)
)

// snapshot returns the node's network state as the usual tools show it, by command.
func (n *node) snapshot(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, v := range views {
		var lines []string
		for l := range strings.SplitSeq(n.run(t, v.command...), "\n") {
			l = strings.TrimSpace(counter.ReplaceAllString(l, ""))
			if l != "" && !noise.MatchString(l+" ") {
				lines = append(lines, l)
			}
		}
		lines = withoutEmptyTables(lines)
		if v.sorted {
			slices.Sort(lines)
		}
		out[strings.Join(v.command, " ")] = lines
	}
	return out
}

// withoutEmptyTables drops tables of iptables-save that have neither chains nor rules.
func withoutEmptyTables(lines []string) []string {
	var out []string
	for i, l := range lines {
		if strings.HasPrefix(l, "*") && i+1 < len(lines) && lines[i+1] == "COMMIT" {
			continue
		}
		if l == "COMMIT" && strings.HasPrefix(lines[i-1], "*") {
			continue
		}
		out = append(out, l)
	}
	return out
}

// sameSnapshot fails the test unless nothing differs.
func sameSnapshot(t *testing.T, before, after map[string][]string) {
	t.Helper()
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("state differs (-before +after):\n%s", d)
	}
}
