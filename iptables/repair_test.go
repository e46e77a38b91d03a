package iptables

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func wanted() Ruleset {
	return Ruleset{
		Family: IPv4,
		Chains: []Chain{
			{"nat", "HOP", []Rule{"-m mark --mark 0x1/0x1 -j HOP-MASQ", "-j RETURN"}},
			{"nat", "HOP-MASQ", []Rule{"-j MASQUERADE"}},
			{"filter", "HOP", nil},
		},
		Jumps: []Jump{{"nat", "PREROUTING", "-j HOP"}, {"nat", "PREROUTING", "-j HOP-MASQ"}, {"filter", "INPUT", "-j HOP"}},
	}
}

func mustParse(t *testing.T, text string) RuleState {
	t.Helper()
	s, err := ParseSave(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const complete = `*nat
:PREROUTING ACCEPT [0:0]
:HOP - [0:0]
:HOP-MASQ - [0:0]
-A PREROUTING -j HOP
-A PREROUTING -j HOP-MASQ
-A PREROUTING -j OTHER
-A HOP -m mark --mark 0x1/0x1 -j HOP-MASQ
-A HOP -j RETURN
-A HOP-MASQ -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:HOP - [0:0]
-A INPUT -j HOP
COMMIT
`

func TestRepair(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(complete, old, new, 1) }
	for _, tc := range []struct{ name, have, nat, differences string }{
		{"complete", complete, "", ""},
		{
			"one chain differs", edit("-A HOP -j RETURN\n", ""), "*nat\n:HOP - [0:0]\n" +
				"-A HOP -m mark --mark 0x1/0x1 -j HOP-MASQ\n-A HOP -j RETURN\nCOMMIT\n",
			`nat: chain HOP: rule 2 is missing: "-j RETURN"`,
		},
		{
			"a chain has one rule too many", edit("-A HOP-MASQ -j MASQUERADE\n", "-A HOP-MASQ -j MASQUERADE\n-A HOP-MASQ -j X\n"),
			"*nat\n:HOP-MASQ - [0:0]\n-A HOP-MASQ -j MASQUERADE\nCOMMIT\n",
			`nat: chain HOP-MASQ: rule 2 is too many: "-j X"`,
		},
		{
			"displaced by one", edit("-A PREROUTING -j HOP\n", "-A PREROUTING -j NEW\n-A PREROUTING -j HOP\n"),
			"*nat\n-D PREROUTING -j HOP\n-D PREROUTING -j HOP-MASQ\n-I PREROUTING 1 -j HOP\n-I PREROUTING 2 -j HOP-MASQ\nCOMMIT\n",
			`nat: PREROUTING: jump "-j HOP" stands at place 2 instead of 1
nat: PREROUTING: jump "-j HOP-MASQ" stands at place 3 instead of 2`,
		},
		{
			"the first stays when the second is missing", edit("-A PREROUTING -j HOP-MASQ\n", ""),
			"*nat\n-I PREROUTING 2 -j HOP-MASQ\nCOMMIT\n", `nat: PREROUTING: jump "-j HOP-MASQ" is missing`,
		},
		{
			"doubled", edit("-A PREROUTING -j OTHER\n", "-A PREROUTING -j OTHER\n-A PREROUTING -j HOP-MASQ\n"),
			"*nat\n-D PREROUTING -j HOP-MASQ\n-D PREROUTING -j HOP-MASQ\n-I PREROUTING 2 -j HOP-MASQ\nCOMMIT\n",
			`nat: PREROUTING: jump "-j HOP-MASQ" is there 2 times`,
		},
	} {
		have := mustParse(t, tc.have)
		if d := cmp.Diff(tc.nat, Repair(have, wanted(), "nat")); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
		if d := cmp.Diff(tc.differences, strings.Join(Differences(have, wanted()), "\n")); d != "" {
			t.Errorf("%s: differences (-want +got):\n%s", tc.name, d)
		}
		if got := Repair(have, wanted(), "filter"); got != "" {
			t.Errorf("%s: filter was complete, but: %s", tc.name, got)
		}
	}
}

func TestRemoval(t *testing.T) {
	text, left := Removal(mustParse(t, complete), wanted(), "nat")
	want := "*nat\n-D PREROUTING -j HOP\n-D PREROUTING -j HOP-MASQ\n-F HOP\n-F HOP-MASQ\n-X HOP\n-X HOP-MASQ\nCOMMIT\n"
	if text != want || left != nil {
		t.Errorf("got %v\n%s", left, text)
	}
	// The same chain name in another table, and a jump of ours with another match: only the second one counts.
	used := strings.Replace(complete, "-j OTHER", "-i eth0 -g HOP-MASQ", 1)
	text, left = Removal(mustParse(t, used), wanted(), "nat")
	if strings.Contains(text, "-X HOP-MASQ") || !strings.Contains(text, "-F HOP-MASQ") || !slices.Equal(left, []string{"HOP-MASQ"}) {
		t.Errorf("got %v\n%s", left, text)
	}
	if text, left := Removal(RuleState{}, wanted(), "nat"); text != "" || left != nil {
		t.Errorf("nothing there: %v\n%s", left, text)
	}
}
