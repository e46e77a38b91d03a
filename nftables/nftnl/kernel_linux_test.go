package nftnl

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/nftables/nftablestest"
)

// lacking skips a test that the machine cannot run, unless REQUIRE_KERNEL says that it must be able to.
func lacking(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") != "" {
		t.Fatalf("REQUIRE_KERNEL is set, but %s: %v", what, err)
	}
	t.Skipf("NOT TESTED ON A KERNEL, since %s: %v", what, err)
}

// openTables opens tables in a network namespace of the test's own. The thread is never unlocked: it ends with the
// goroutine, and the namespace with it.
func openTables(t testing.TB) *Tables {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		lacking(t, "no network namespace can be made", err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	tables, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tables.Close() })
	if err := tables.Try(t.Context(), skeletons()); err != nil {
		lacking(t, "the kernel cannot hold the tables", err)
	}
	return tables
}

func skeletons() []nftables.Table {
	var out []nftables.Table
	for _, f := range []nftables.Family{nftables.IPv4, nftables.IPv6, nftables.ARP} {
		out = append(out, nftablestest.Skeleton(f))
	}
	return out
}

func TestKernel(t *testing.T) {
	nftablestest.Conformance(t, func(t *testing.T) nftables.Tables { return openTables(t) })
}

// TestKernelTry: what was tried is not there, and what the kernel refuses is said.
func TestKernelTry(t *testing.T) {
	tables := openTables(t)
	if listed := list(t); strings.Contains(listed, "try") {
		t.Errorf("left behind:\n%s", listed)
	}
	bad := nftablestest.Skeleton(nftables.IPv4)
	bad.Chains[0].Hook = 9
	if err := tables.Try(t.Context(), []nftables.Table{bad}); err == nil {
		t.Error("a chain at a hook that does not exist was found possible")
	}
	if err := tables.Try(t.Context(), skeletons()); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

// TestKernelText: the nft command lists what was programmed in the words in which a table prints itself.
func TestKernelText(t *testing.T) {
	tables := openTables(t)
	if _, err := tables.Ensure(t.Context(), skeletons()); err != nil {
		t.Fatal(err)
	}
	// nft knows nothing of values of several parts: it shows the first that is written, and then what was in the register.
	second := regexp.MustCompile(` \. (udp sport) set (.* map @learned)$`)
	udp := strings.NewReplacer("meta l4proto udp ", "")
	implied := regexp.MustCompile(`meta l4proto (tcp|udp|sctp) (tcp|udp|sctp) `)
	reset := regexp.MustCompile(`meta l4proto tcp (.*(reject with tcp reset|tcp flags).*)`)
	var want, comments []string
	for _, table := range skeletons() {
		for _, c := range table.Chains {
			for _, r := range c.Rules {
				comments = append(comments, r.Text(table.Family))
				// nft leaves out the protocol that is implied by a port, a flag or a reset.
				text := reset.ReplaceAllString(implied.ReplaceAllString(r.Text(table.Family), "$2 "), "$1")
				want = append(want, second.ReplaceAllString(udp.Replace(text), " set $2 $1 set udp dport"))
			}
		}
	}
	var got []string
	for line := range strings.Lines(list(t)) {
		if rule, comment, ok := strings.Cut(strings.TrimSpace(line), ` comment "`); ok {
			got = append(got, udp.Replace(strings.TrimSpace(rule)))
			if text := strings.TrimSuffix(comment, `"`); text != comments[len(got)-1] {
				t.Errorf("comment %q of rule %q", text, rule)
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rules (-ours +nft):\n%s", d)
	}
}

func list(t *testing.T) string {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		lacking(t, "there is no nft command to look with", err)
	}
	out, err := exec.Command(nft, "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	return string(out)
}

func BenchmarkKernelAdd(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("elements=%d", n), func(b *testing.B) {
			tables := openTables(b)
			table := nftablestest.Skeleton(nftables.IPv4)
			if _, err := tables.Ensure(b.Context(), []nftables.Table{table}); err != nil {
				b.Fatal(err)
			}
			ops := make([]nftables.Op, n)
			for i := range ops {
				addr := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
				ops[i] = nftables.Op{Set: table.ID("frontends"), Key: nftables.Key{Addr: addr, Proto: 6, Port: 80}}
			}
			b.ReportAllocs()
			for b.Loop() {
				for i := range ops {
					ops[i].Delete = !ops[i].Delete
				}
				if failed := tables.Apply(b.Context(), ops); failed != nil {
					b.Fatal(failed[0])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/element")
		})
	}
}
