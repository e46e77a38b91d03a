package iptables

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func TestEntryCheck(t *testing.T) {
	p := netip.MustParsePrefix
	for _, tc := range []struct {
		name string
		e    Entry
		typ  SetType
		ok   bool
	}{
		{"address and port", Entry{Prefix: p("10.0.0.1/32"), Proto: 6, Port: 80}, HashIPPort, true},
		{"port 0", Entry{Prefix: p("10.0.0.1/32"), Proto: 132}, HashIPPort, true},
		{"IPv6 with source", Entry{Prefix: p("fd00::1/128"), Proto: 17, Port: 53, Net: p("fd00::/8")}, HashIPPortNet, true},
		{"network", Entry{Prefix: p("10.0.0.0/8")}, HashNet, true},
		{"zero", Entry{}, HashNet, false},
		{"host bits", Entry{Prefix: p("10.0.0.1/8")}, HashNet, false},
		{"host bits of the source", Entry{Prefix: p("10.0.0.1/32"), Proto: 6, Net: p("10.0.0.1/8")}, HashIPPortNet, false},
		{"length 0", Entry{Prefix: p("0.0.0.0/0")}, HashNet, false},
		{"source of length 0", Entry{Prefix: p("fd00::1/128"), Proto: 6, Net: p("::/0")}, HashIPPortNet, false},
		{"range with port", Entry{Prefix: p("10.0.0.0/24"), Proto: 6, Port: 1}, HashIPPort, false},
		{"port without protocol", Entry{Prefix: p("10.0.0.1/32"), Port: 1}, HashNet, false},
		{"protocol without ports", Entry{Prefix: p("10.0.0.1/32"), Proto: 47, Port: 1}, HashIPPort, false},
		{"two families", Entry{Prefix: p("10.0.0.1/32"), Proto: 6, Net: p("fd00::/8")}, HashIPPortNet, false},
		{"mapped", Entry{Prefix: p("::ffff:10.0.0.1/128"), Proto: 6, Port: 80}, HashIPPort, false},
	} {
		err := tc.e.Check()
		if (err == nil) != tc.ok || (err != nil && !errors.Is(err, ErrEntry)) || tc.e.Type() != tc.typ {
			t.Errorf("%s: type %s, error %v", tc.name, tc.e.Type(), err)
		}
	}
}

func TestStorable(t *testing.T) {
	for in, want := range map[string][]string{
		"0.0.0.0/0":   {"0.0.0.0/1", "128.0.0.0/1"},
		"::/0":        {"::/1", "8000::/1"},
		"10.1.2.3/8":  {"10.0.0.0/8"},
		"10.0.0.1/32": {"10.0.0.1/32"},
	} {
		var got []string
		for _, p := range Storable(netip.MustParsePrefix(in)) {
			got = append(got, p.String())
			if err := (Entry{Prefix: p}).Check(); err != nil {
				t.Errorf("Storable(%s) gives what cannot be stored: %v", in, err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("Storable(%s) = %v, want %v", in, got, want)
		}
	}
}
