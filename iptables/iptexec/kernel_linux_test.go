package iptexec

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/ipsetnl"
	"github.com/kube-hop/kube-hop/iptables/iptablestest"
)

// lacking skips a test that the machine cannot run, unless REQUIRE_KERNEL says that it must be able to.
func lacking(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") != "" {
		t.Fatalf("REQUIRE_KERNEL is set, but %s: %v", what, err)
	}
	t.Skipf("NOT TESTED ON A KERNEL, since %s: %v", what, err)
}

// namespace puts the goroutine of a test into a network namespace of its own. The thread is never unlocked: it
// ends with the goroutine, and the namespace with it. Programs that are run inherit the namespace.
func namespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		lacking(t, "no network namespace can be made", err)
	}
	t.Cleanup(func() { _ = ns.Close() })
}

// open returns the rules of a fresh namespace in which the set of the skeleton exists.
func open(t testing.TB, f iptables.Family, variant string) *Rules {
	t.Helper()
	namespace(t)
	r, err := openVariant(f, variant)
	if err != nil {
		lacking(t, "iptables is not there", err)
	}
	if _, _, err := r.tool.save(t.Context(), nil); err != nil {
		lacking(t, "iptables does not work", err)
	}
	sets, err := ipsetnl.Open()
	if err != nil {
		lacking(t, "ipset does not answer", err)
	}
	defer func() { _ = sets.Close() }()
	s := iptables.Set{Name: iptablestest.SkeletonSet, Type: iptables.HashIPPort, Family: f, MaxElem: 10}
	if err := sets.Ensure(t.Context(), []iptables.Set{s}); err != nil {
		t.Fatal(err)
	}
	return r
}

// variants runs a test for both variants of iptables and both families. With -short it leaves out the legacy one: each
// of its hundreds of processes costs a tenth of a second in an emulated machine.
func variants(t *testing.T, test func(t *testing.T, f iptables.Family, variant string)) {
	all := []string{"nft", "legacy"}
	if testing.Short() {
		all = all[:1]
	}
	for _, variant := range all {
		for _, f := range []iptables.Family{iptables.IPv4, iptables.IPv6} {
			t.Run(variant+"/"+f.String(), func(t *testing.T) { test(t, f, variant) })
		}
	}
}

// other is the plain iptables command.
type other struct {
	t    testing.TB
	name string
}

func (o other) run(table string, args string, r iptables.Rule) {
	o.t.Helper()
	// The rule goes through a shell only for its quotes; backslashes mean the same in both.
	line := fmt.Sprintf("exec %s -w 5 -t %s %s %s", o.name, table, args, strings.ReplaceAll(string(r), "!", `\!`))
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		o.t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func (o other) NewChain(table, chain string) { o.run(table, "-N "+chain, "") }
func (o other) Insert(table, chain string, place int, r iptables.Rule) {
	o.run(table, "-I "+chain+" "+strconv.Itoa(place), r)
}
func (o other) Delete(table, chain string, r iptables.Rule) { o.run(table, "-D "+chain, r) }
func (o other) Flush(table string)                          { o.run(table, "-F", "") }

func (o other) List(table, chain string) ([]iptables.Rule, bool) {
	out, err := exec.Command(o.name+"-save", "-t", table).CombinedOutput()
	if err != nil {
		o.t.Fatalf("%s-save: %v\n%s", o.name, err, out)
	}
	state, err := iptables.ParseSave(string(out))
	if err != nil {
		o.t.Fatal(err)
	}
	rules, ok := state[table][chain]
	return rules, ok
}

func TestKernel(t *testing.T) {
	variants(t, func(t *testing.T, f iptables.Family, variant string) {
		iptablestest.ConformanceRules(t, func(t *testing.T) iptablestest.RulesEnv {
			r := open(t, f, variant)
			return iptablestest.RulesEnv{Family: f, Rules: r, Other: other{t, r.tool.name}}
		})
	})
}

// The variant that the machine uses must pass as well as the ones that are named.
func TestKernelOpen(t *testing.T) {
	for _, f := range []iptables.Family{iptables.IPv4, iptables.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			open(t, f, "")
			r, err := Open(f)
			if err != nil {
				t.Fatal(err)
			}
			want := iptablestest.Skeleton(f)
			if err := r.Apply(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context(), want); err != nil || len(d) > 0 {
				t.Errorf("differences %q, %v", d, err)
			}
			if !r.HasRandomFully() {
				t.Error("--random-fully was just used")
			}
		})
	}
}

// TestKernelCheckWithoutProcess: while no rule of any program has changed, a check starts no process, and a repair none to
// look again. The legacy
// variant cannot tell, so there every check looks.
func TestKernelCheckWithoutProcess(t *testing.T) {
	for variant, looks := range map[string]bool{"nft": false, "legacy": true} {
		t.Run(variant, func(t *testing.T) {
			r := open(t, iptables.IPv4, variant)
			want := iptablestest.Skeleton(iptables.IPv4)
			if err := r.Apply(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context(), want); err != nil || len(d) > 0 {
				t.Fatalf("differences %q, %v", d, err)
			}
			save := r.tool.savePath
			r.tool.savePath = "/nonexistent" // whoever starts it fails
			if _, err := r.Check(t.Context(), want); (err != nil) != looks {
				t.Errorf("a check of what has not changed: %v", err)
			}
			fewer := want
			fewer.Jumps = want.Jumps[1:]
			if _, err := r.Check(t.Context(), fewer); err == nil {
				t.Error("a check against other rules did not look")
			}
			r.tool.savePath = save
			if d, err := r.Check(t.Context(), want); err != nil || len(d) > 0 {
				t.Fatalf("differences %q, %v", d, err)
			}
			other{t, r.tool.name}.Flush(want.Chains[0].Table)
			if d, err := r.Check(t.Context(), want); err != nil || len(d) == 0 {
				t.Errorf("after a flush: differences %q, %v", d, err)
			}
			r.tool.savePath = "/nonexistent"
			if err := r.Apply(t.Context(), want); (err != nil) != looks {
				t.Errorf("repair of what a check has just seen: %v", err)
			}
			r.tool.savePath = save
			if err := r.Apply(t.Context(), want); err != nil { // now there is nothing that was just seen
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context(), want); err != nil || len(d) > 0 {
				t.Errorf("after the repair: differences %q, %v", d, err)
			}
		})
	}
}

// TestKernelOneProcessForAllTables: rules of several tables are restored by one process, unless one of them is refused.
func TestKernelOneProcessForAllTables(t *testing.T) {
	variants(t, func(t *testing.T, f iptables.Family, variant string) {
		r := open(t, f, variant)
		count := counted(t, &r.tool.restorePath)
		want := iptablestest.Skeleton(f)
		if tables := len(want.Tables()); tables < 2 {
			t.Fatalf("%d tables say nothing", tables)
		}
		if err := r.Apply(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if n := count(); n != 1 {
			t.Errorf("restoring all tables took %d processes, want 1", n)
		}
		if err := r.Apply(t.Context(), want); err != nil || count() != 1 {
			t.Errorf("restoring what is in order: %v, %d processes, want none", err, count()-1)
		}
	})
}

// counted puts a script before a program that counts how often it is started.
func counted(t *testing.T, path *string) (count func() int) {
	t.Helper()
	dir := t.TempDir()
	script, log := filepath.Join(dir, filepath.Base(*path)), filepath.Join(dir, "log")
	text := fmt.Sprintf("#!/bin/sh\necho >>%s\nexec %s \"$@\"\n", log, *path)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	*path = script
	return func() int {
		lines, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return len(lines)
	}
}

// Tables that the nft program filled are not readable, which must not look as if they were empty.
func TestKernelIncompatibleTable(t *testing.T) {
	r := open(t, iptables.IPv4, "nft")
	if _, err := exec.LookPath("nft"); err != nil {
		lacking(t, "the nft program is not there", err)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(`
		table ip nat {
			chain PREROUTING {
				type nat hook prerouting priority -100
				meta mark set numgen random mod 2
			}
		}
	`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	want := iptables.Ruleset{Family: iptables.IPv4, Chains: []iptables.Chain{{Table: "nat", Name: "HOP"}}}
	if _, err := r.Check(t.Context(), want); err == nil || !strings.Contains(err.Error(), "table nat") {
		t.Errorf("check: %v", err)
	}
	want.Chains[0].Table = "filter"
	if err := r.Apply(t.Context(), want); err != nil {
		t.Errorf("the other tables are fine, but: %v", err)
	}
}
