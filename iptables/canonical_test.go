package iptables

import (
	"slices"
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	for in, want := range map[Rule]Rule{
		"-j ACCEPT": "-j ACCEPT",
		`-m comment --comment "kube-hop: a \"b\"" -j RETURN`: `-m comment --comment "kube-hop: a \"b\"" -j RETURN`,
		`-m comment --comment "plain"   -j RETURN`:           `-m comment --comment plain -j RETURN`,
		"-j RETURN --src 10.0.0.1":                           "-s 10.0.0.1/32 -j RETURN",
		"-d fd00::1 --source fd00:0::/16 -j X":               "-s fd00::/16 -d fd00::1/128 -j X",
		"-s 0.0.0.0/0 -d ::/0 -j X":                          "-j X",
		"! -o lo -i br0 -j X":                                "-i br0 ! -o lo -j X",
		"-m set ! --match-set S src -p udp -g Y":             "-p udp -m set ! --match-set S src -g Y",
		"-m conntrack --ctstate ESTABLISHED,RELATED":         "-m conntrack --ctstate RELATED,ESTABLISHED",
		"-m mark ! --mark 16384/0x4000 --jump Z":             "-m mark ! --mark 0x4000/0x4000 -j Z",
		"-m mark --mark 1/0xFFFFFFFF":                        "-m mark --mark 0x1",
		"-j MARK --set-xmark 0x4000":                         "-j MARK --set-xmark 0x4000/0xffffffff",
		"-m comment --comment -s -j X":                       "-m comment --comment -s -j X",
		"-m comment --comment ! -j X":                        "-m comment --comment ! -j X",
		`-m comment --comment "" -j X`:                       `-m comment --comment "" -j X`,
	} {
		if got := Canonical(in); got != want {
			t.Errorf("Canonical(%s)\n got %s\nwant %s", in, got, want)
		}
	}
}

func FuzzCanonicalTwice(f *testing.F) {
	f.Add(`! -s 10.0.0.1 -m comment --comment "a \" b" -j X --set-xmark 1/2`)
	f.Add(`-m conntrack --ctstate NEW,B,A -o "" !`)
	f.Add(`-s -d ! ! -j`)
	f.Fuzz(func(t *testing.T, s string) {
		once := Canonical(Rule(s))
		if twice := Canonical(once); twice != once {
			t.Errorf("%q becomes %q, which becomes %q", s, once, twice)
		}
	})
}

func FuzzTokensInvertQuote(f *testing.F) {
	f.Add("a b", `c"d\`, "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		in := []string{a, b, c}
		got := tokens(quote(a) + " " + quote(b) + "  " + quote(c))
		if !slices.Equal(got, in) {
			t.Errorf("%q came back as %q", in, got)
		}
	})
}

func FuzzParseSave(f *testing.F) {
	f.Add("# x\n*nat\n:PREROUTING ACCEPT [0:0]\n:A - [0:0]\n[1:2] -A A -j RETURN\n-A PREROUTING -j A\nCOMMIT\n")
	f.Add("*f\n:A -\n-A A\nCOMMIT\n*f\n")
	f.Add(":A - [0:0]\n")
	f.Fuzz(func(t *testing.T, s string) {
		state, err := ParseSave(s)
		if err != nil {
			return
		}
		text := state.String()
		again, err := ParseSave(text)
		if err != nil {
			t.Fatalf("%v in our own text:\n%s", err, text)
		}
		if again.String() != text {
			t.Errorf("printed twice:\n%s\nand\n%s", text, again)
		}
	})
}

func TestParseSaveErrors(t *testing.T) {
	for in, want := range map[string]string{
		":A - [0:0]":           "line 1 is outside of a table",
		"*nat\n-A B -j X":      `line 2: a rule of chain "B"`,
		"*nat\n:\n":            "line 2: a chain without name",
		"*nat\nhello":          "line 2: neither table, chain nor rule",
		"*nat\nCOMMIT\n:A - x": "line 3 is outside",
	} {
		if _, err := ParseSave(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}
