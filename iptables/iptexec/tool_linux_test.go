package iptexec

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/iptables"
)

func TestOpenWithoutPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, f := range []iptables.Family{iptables.IPv4, iptables.IPv6} {
		_, err := Open(f)
		if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "package iptables") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// fakeProgram writes a shell script of that name into a folder of its own in PATH.
func fakeProgram(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	for _, tc := range []struct{ name, version, want string }{
		{"new enough", "iptables v1.6.2", ""},
		{"old", "iptables v1.6.1", "too old"},
		{"nothing to read", "hello", "version"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir)
			fakeProgram(t, dir, "iptables", "echo "+tc.version)
			fakeProgram(t, dir, "iptables-save", "exit 0")
			fakeProgram(t, dir, "iptables-restore", "exit 0")
			_, err := Open(iptables.IPv4)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
			// The other family has no programs here, and is none of the first one's business.
			if _, err := Open(iptables.IPv6); !errors.Is(err, exec.ErrNotFound) {
				t.Errorf("IPv6: %v", err)
			}
		})
	}
}

// What a program says ends up in one line, with the rule that it is about.
func TestFailureNamesTheRule(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	fakeProgram(t, dir, "iptables", "echo iptables v1.8.9")
	fakeProgram(t, dir, "iptables-save", "exit 0")
	fakeProgram(t, dir, "iptables-restore", "echo bad rule >&2; echo Error occurred at line: 3 >&2; exit 2")
	r, err := Open(iptables.IPv4)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Apply(t.Context(), iptables.Ruleset{Chains: []iptables.Chain{{Table: "nat", Name: "A", Rules: []iptables.Rule{"-j B"}}}})
	want := `iptables-restore: table nat: exit status 2: bad rule Error occurred at line: 3: "-A A -j B"`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestComplaint(t *testing.T) {
	for said, want := range map[string]string{
		"iptables-restore v1.8.9: line 2 failed": "two",
		"Error occurred at line: 3":              "three",
		"line 9 failed":                          "",
		"in line":                                "",
	} {
		if got := complaint(said, "one\ntwo\nthree"); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}

// Another program that keeps the xtables lock is named in the error, and once it is gone the same call works.
func TestKernelLockHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", path) // not the machine's own lock, which others here may need
	r := open(t, iptables.IPv4, "legacy")
	r.tool.lockWaitSeconds = 1
	lock, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	want := iptables.Ruleset{Family: iptables.IPv4, Chains: []iptables.Chain{{Table: "nat", Name: "HOP"}}}
	if err := r.Apply(t.Context(), want); !errors.Is(err, iptables.ErrLocked) {
		t.Errorf("want ErrLocked, got %v", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(t.Context(), want); err != nil {
		t.Error(err)
	}
}
