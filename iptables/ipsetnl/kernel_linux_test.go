package ipsetnl

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/kube-hop/kube-hop/iptables"
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
// ends with the goroutine, and the namespace with it.
func namespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		lacking(t, "no network namespace can be made", err)
	}
	t.Cleanup(func() { _ = ns.Close() })
}

func openSets(t testing.TB) *Sets {
	t.Helper()
	namespace(t)
	s, err := Open()
	if err != nil {
		lacking(t, "ipset does not answer", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// use makes a rule of the iptables command refer to a set.
func use(t *testing.T, s iptables.Set) (release func()) {
	t.Helper()
	bin := "iptables"
	if s.Family == iptables.IPv6 {
		bin = "ip6tables"
	}
	rule := func(verb string) {
		out, err := exec.Command(bin, verb, "INPUT", "-m", "set", "--match-set", s.Name, "dst").CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", bin, verb, err, out)
		}
	}
	if _, err := exec.LookPath(bin); err != nil {
		lacking(t, "the rule that uses the set cannot be made", err)
	}
	rule("-A")
	return func() { rule("-D") }
}

func TestKernel(t *testing.T) {
	iptablestest.ConformanceSets(t, func(t *testing.T) iptablestest.SetsEnv {
		return iptablestest.SetsEnv{Sets: openSets(t), Use: use}
	})
}

// A set that a killed process left behind while it grew another must not keep anything from growing.
func TestKernelLeftover(t *testing.T) {
	s := openSets(t)
	left := iptables.Set{Name: growName, Type: iptables.HashNet, Family: iptables.IPv6, MaxElem: 5}
	small := iptables.Set{Name: "S", Type: iptables.HashIPPort, Family: iptables.IPv4, MaxElem: 5}
	if err := s.Ensure(t.Context(), []iptables.Set{left, small}); err != nil {
		t.Fatal(err)
	}
	small.MaxElem = 6
	if err := s.Ensure(t.Context(), []iptables.Set{small}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.header("S"); err != nil || got.set != small {
		t.Errorf("grown set: %+v, %v", got, err)
	}
	if got, err := s.Dump(t.Context(), []iptables.Set{left}); err != nil || len(got) != 0 {
		t.Errorf("%s is still there: %v, %v", growName, got, err)
	}
}

// Looking at sets that are there is one request, however many they are, and the sets of others are not in the way.
func TestKernelLooksOnce(t *testing.T) {
	s := openSets(t)
	if err := s.create(iptables.Set{Name: "of others", Type: "hash:ip", Family: iptables.IPv4, MaxElem: 5}); err != nil {
		t.Fatal(err)
	}
	var sets []iptables.Set
	for i := range 100 {
		sets = append(sets, iptables.Set{Name: fmt.Sprintf("S%d", i), Type: iptables.HashIPPort, Family: iptables.IPv4, MaxElem: 5})
	}
	if err := s.Ensure(t.Context(), sets); err != nil {
		t.Fatal(err)
	}
	before := s.conn.seq
	if err := s.Ensure(t.Context(), sets); err != nil {
		t.Fatal(err)
	}
	counts, err := s.Count(t.Context(), sets)
	if err != nil || len(counts) != len(sets) {
		t.Errorf("counted %d of %d sets: %v", len(counts), len(sets), err)
	}
	if requests := s.conn.seq - before; requests != 2 {
		t.Errorf("%d requests to look at %d sets twice, want 2", requests, len(sets))
	}
}

// The kernel answers for the entry that failed, not for the batch: three bad ones cost three more messages.
func TestKernelNamesTheCulprit(t *testing.T) {
	s := openSets(t)
	set := iptables.Set{Name: "S", Type: iptables.HashNet, Family: iptables.IPv4, MaxElem: 1000}
	if err := s.Ensure(t.Context(), []iptables.Set{set}); err != nil {
		t.Fatal(err)
	}
	ops := networks("S", 200)
	full := iptables.Set{Name: "F", Type: iptables.HashNet, Family: iptables.IPv4, MaxElem: 197}
	if err := s.Ensure(t.Context(), []iptables.Set{full}); err != nil {
		t.Fatal(err)
	}
	for i := range ops {
		ops[i].Set = "F"
	}
	before := s.conn.seq
	if failed := s.Apply(t.Context(), ops); len(failed) != 3 {
		t.Fatalf("%d failed, want 3: %v", len(failed), failed)
	}
	if n := s.conn.seq - before; n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

func BenchmarkKernelAdd(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			s := openSets(b)
			set := iptables.Set{Name: "S", Type: iptables.HashNet, Family: iptables.IPv4, MaxElem: 1 << 20}
			if err := s.Ensure(b.Context(), []iptables.Set{set}); err != nil {
				b.Fatal(err)
			}
			ops := networks("S", n)
			b.ReportAllocs()
			for b.Loop() {
				for i := range ops {
					ops[i].Delete = false
				}
				if failed := s.Apply(b.Context(), ops); failed != nil {
					b.Fatal(failed[0])
				}
				b.StopTimer()
				for i := range ops {
					ops[i].Delete = true
				}
				if failed := s.Apply(b.Context(), ops); failed != nil {
					b.Fatal(failed[0])
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/entry")
		})
	}
}
