package iptables

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Canonical returns the rule as iptables-save would print it, as far as that is needed to compare: the options
// that every rule may have first and in their order, short option names, networks with prefix length, connection
// states in the kernel's order, marks in hexadecimal, quotes only where needed. The same rule comes out for both
// variants of iptables (nf_tables and legacy).
//
// It does not know what each match implies: rules are to be written with "-m tcp" in front of --dport, and with
// --reject-with.
func Canonical(r Rule) Rule {
	c := splitRule(tokens(string(r)))
	var out []string
	for _, opt := range generalOptions {
		out = append(out, c.general[opt]...)
	}
	out = append(append(out, c.matches...), c.target...)
	for i, t := range out {
		out[i] = quote(t)
	}
	return Rule(strings.Join(out, " "))
}

// generalOptions is the order in which iptables-save prints the options that need no match.
var generalOptions = [...]string{"-s", "-d", "-i", "-o", "-p"} //nolint:gochecknoglobals // a constant list

// shortOption returns the name that iptables-save uses for an option.
func shortOption(s string) string {
	switch s {
	case "--source", "--src":
		return "-s"
	case "--destination", "--dst":
		return "-d"
	case "--in-interface":
		return "-i"
	case "--out-interface":
		return "-o"
	case "--protocol", "--proto":
		return "-p"
	case "--match":
		return "-m"
	case "--jump":
		return "-j"
	case "--goto":
		return "-g"
	}
	return s
}

// splitTokens is a rule's tokens by the place where they are printed.
type splitTokens struct {
	general         map[string][]string // by option, negation included
	matches, target []string
}

func splitRule(in []string) splitTokens {
	c := splitTokens{general: map[string][]string{}}
	rest := &c.matches
	var not []string // the negation of the option that follows
	for len(in) > 0 {
		opt := shortOption(in[0])
		in = in[1:]
		if opt == "!" {
			not = []string{"!"}
			continue
		}
		if opt == "-j" || opt == "-g" {
			rest = &c.target
		}
		words := []string{opt}
		// An option's value is taken with it, so that a comment that looks like an option stays a comment.
		takesAny := opt == "--comment"
		if strings.HasPrefix(opt, "-") && len(in) > 0 && (takesAny || !strings.HasPrefix(in[0], "-") && in[0] != "!") {
			words = append(words, canonicalValue(opt, in[0]))
			in = in[1:]
		}
		words = append(not, words...)
		not = nil
		switch {
		case !slices.Contains(generalOptions[:], opt):
			*rest = append(*rest, words...)
		case len(words) > 1 && !isEverything(words[len(words)-1]):
			c.general[opt] = words
		}
	}
	*rest = append(*rest, not...)
	return c
}

// isEverything tells a network that iptables-save leaves out.
func isEverything(network string) bool { return network == "0.0.0.0/0" || network == "::/0" }

func canonicalValue(opt, v string) string {
	switch opt {
	case "-s", "-d":
		return canonicalNetwork(v)
	case "--ctstate":
		return canonicalStates(v)
	case "--mark":
		return strings.TrimSuffix(canonicalMark(v), "/0xffffffff")
	case "--set-xmark":
		if m := canonicalMark(v); strings.Contains(m, "/") {
			return m
		}
		return canonicalMark(v + "/0xffffffff")
	}
	return v
}

func canonicalNetwork(v string) string {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	if p, err := netip.ParsePrefix(v); err == nil {
		return p.Masked().String()
	}
	return v
}

// canonicalStates orders states as libxt_conntrack prints them.
func canonicalStates(v string) string {
	order := []string{"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"}
	states := strings.Split(v, ",")
	slices.SortStableFunc(states, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	return strings.Join(states, ",")
}

func canonicalMark(v string) string {
	parts := strings.Split(v, "/")
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 0, 32)
		if err != nil {
			return v
		}
		parts[i] = "0x" + strconv.FormatUint(n, 16)
	}
	return strings.Join(parts, "/")
}

// tokens splits a rule as iptables-restore does: at spaces outside of double quotes, in which a backslash takes
// the next character literally. Source: add_param_to_argv in xshared.c.
func tokens(s string) []string {
	var out []string
	var cur []byte
	started, quoted, escaped := false, false, false
	for i := range len(s) {
		ch := s[i]
		switch {
		case escaped:
			cur, escaped = append(cur, ch), false
		case quoted && ch == '\\':
			escaped = true
		case ch == '"':
			quoted, started = !quoted, true
		case !quoted && (ch == ' ' || ch == '\t'):
			if started {
				out = append(out, string(cur))
			}
			cur, started = nil, false
		default:
			cur, started = append(cur, ch), true
		}
	}
	if started {
		out = append(out, string(cur))
	}
	return out
}

// quote is the inverse of tokens for one of them.
func quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\"\\") {
		return s
	}
	s = strings.ReplaceAll(s, `\`, `\\`)
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}

// target returns what the rule jumps or goes to, or "".
func (r Rule) target() string {
	t := splitRule(tokens(string(r))).target
	if len(t) > 1 && (t[0] == "-j" || t[0] == "-g") {
		return t[1]
	}
	return ""
}
