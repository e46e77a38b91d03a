package proxier_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"

	"github.com/kube-hop/kube-hop/config"
	"github.com/kube-hop/kube-hop/conntrack/conntracktest"
	"github.com/kube-hop/kube-hop/events/eventstest"
	"github.com/kube-hop/kube-hop/informers"
	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/iptablestest"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/loopback/loopbacktest"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/nftables/nftablestest"
	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// machine is one node of a script: a fake kernel that outlives the daemons that run on it.
type machine struct {
	tb      testing.TB
	now     time.Time
	table   *ipvstest.Fake
	sets    *iptablestest.FakeSets
	looped  *loopbacktest.Fake
	tables  *nftablestest.Fake
	rules   map[lb.Family]iptables.Rules
	fake4   *iptablestest.FakeRules // rules of IPv4, for a look at them
	noNFT   bool                    // the kernel has no nf_tables
	refused string                  // operations that contain this text fail
	flaky   int                     // one operation in so many fails; 0 for none
	sysctls []string
	flows   *conntracktest.Fake

	daemon  *proxier.Proxier
	metrics *metrics.Metrics
	events  eventstest.Recorder
	health  map[lb.Name][]lb.HealthCheck // what is served at healthCheckNodePorts
	objects informers.Snapshot           // what was applied so far, for a daemon that starts later
	last    render.Plan
	looked  int // how often nf_tables was asked for elements, in the last step
}

// nodeAddresses are the addresses of the node that scripts run on.
var nodeAddresses = []netip.Addr{netip.MustParseAddr("192.168.50.11"), netip.MustParseAddr("fd50::11")}

type machineKey struct{}

func setup(flaky int) func(*testscript.Env) error {
	return func(env *testscript.Env) error {
		m := &machine{
			now: time.Unix(1_700_000_000, 0), flaky: flaky,
			table: ipvstest.NewFake(nodeAddresses...), sets: iptablestest.NewFakeSets(), flows: conntracktest.NewFake(),
			looped: loopbacktest.NewFake(),
			tables: nftablestest.NewFake(),
		}
		m.fake4 = iptablestest.NewFakeRules()
		m.rules = map[lb.Family]iptables.Rules{lb.IPv4: m.fake4, lb.IPv6: iptablestest.NewFakeRules()}
		m.objects.Node = lb.Node{Name: "n1", Addresses: nodeAddresses}
		env.Values[machineKey{}] = m
		m.tb = env.T().(testing.TB)
		return m.start(nil)
	}
}

func machineOf(ts *testscript.TestScript) *machine { return ts.Value(machineKey{}).(*machine) }

// start runs a new daemon on the machine's kernel, with kube-hop's own flags.
func (m *machine) start(args []string) error {
	var flags config.Flags
	fs := pflag.NewFlagSet("kube-hop", pflag.ContinueOnError)
	flags.Add(fs)
	if err := fs.Parse(append([]string{"--hostname-override=n1", "--cluster-cidr=10.244.0.0/16,fd24::/48"}, args...)); err != nil {
		return err
	}
	c, err := flags.RunConfig()
	if err != nil {
		return err
	}
	plane := proxier.Dataplane{IPVS: refusingTable{m.table, m}, Sets: refusingSets{m.sets, m}, Rules: m.rules, Flows: m.flows}
	plane.Loopback = refusingLoopback{m.looped, m}
	if c.Proxier.Render.NFTables = !m.noNFT; !m.noNFT {
		plane.NFT = refusingTables{m.tables, m}
	}
	if m.flaky > 0 {
		plane.IPVS = ipvstest.NewFlaky(m.tb, plane.IPVS, m.flaky, 1)
		if plane.NFT != nil {
			plane.NFT = nftablestest.NewFlaky(m.tb, plane.NFT, m.flaky, 1)
		}
		plane.Sets = flakyApply{plane.Sets, iptablestest.NewFlakySets(m.tb, plane.Sets, m.flaky, 1)}
		plane.Loopback = loopbacktest.NewFlaky(m.tb, plane.Loopback, m.flaky, 1)
	}
	plane.Sysctls = func(context.Context) ([]string, error) {
		changed := m.sysctls
		m.sysctls = nil
		return changed, nil
	}
	plane.Scheduler = func(_ context.Context, name string) error {
		if m.refuses("scheduler " + name) {
			return errRefused
		}
		return nil
	}
	m.health = map[lb.Name][]lb.HealthCheck{} // servers end with their daemon
	m.metrics = metrics.New()
	m.daemon = proxier.New(c.Proxier, plane, m.metrics, func() time.Time { return m.now })
	m.daemon.Events = &m.events
	m.daemon.HealthServers = m
	m.daemon.Tracker.SetLocalAddresses(nodeAddresses)
	m.objects.Feed(m.daemon.Tracker)
	return nil
}

// flakyApply fails operations on entries only: what Ensure and Dump do is not retried one by one.
type flakyApply struct {
	iptables.Sets
	flaky iptables.Sets
}

func (f flakyApply) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	return f.flaky.Apply(ctx, ops)
}

var errRefused = errors.New("refused by the script")

// refusingTable fails the operations that the script named.
type refusingTable struct {
	ipvs.Table
	m *machine
}

func (r refusingTable) Apply(ctx context.Context, ops []ipvs.Op) []*ipvs.OpError {
	var out []*ipvs.OpError
	for _, op := range ops {
		if r.m.refuses(op.String()) {
			out = append(out, &ipvs.OpError{Op: op, Err: errRefused})
			continue
		}
		out = append(out, r.Table.Apply(ctx, []ipvs.Op{op})...)
	}
	return out
}

func (r refusingTable) Conns(ctx context.Context, k ipvs.Key) (map[ipvs.Dest]ipvs.Conns, error) {
	if r.m.refuses("connections of " + k.String()) {
		return nil, errRefused
	}
	return r.Table.Conns(ctx, k)
}

// refusingSets fails the operations that the script named.
type refusingSets struct {
	iptables.Sets
	m *machine
}

func (r refusingSets) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	var out []*iptables.SetError
	for _, op := range ops {
		if r.m.refuses(op.String()) {
			out = append(out, &iptables.SetError{Op: op, Err: errRefused})
			continue
		}
		out = append(out, r.Sets.Apply(ctx, []iptables.SetOp{op})...)
	}
	return out
}

// refusingLoopback fails the operations that the script named.
type refusingLoopback struct {
	loopback.Table
	m *machine
}

func (r refusingLoopback) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	var out []*iptables.SetError
	for _, op := range ops {
		if r.m.refuses(op.String()) {
			out = append(out, &iptables.SetError{Op: op, Err: errRefused})
			continue
		}
		out = append(out, r.Table.Apply(ctx, []iptables.SetOp{op})...)
	}
	return out
}

// refusingTables fails the operations that the script named.
type refusingTables struct {
	nftables.Tables
	m *machine
}

func (r refusingTables) Apply(ctx context.Context, ops []nftables.Op) []*nftables.OpError {
	var out []*nftables.OpError
	for _, op := range ops {
		if r.m.refuses(op.String()) {
			out = append(out, &nftables.OpError{Op: op, Err: errRefused})
			continue
		}
		if chain := chainsOf[op.Set.Name]; chain != "" && !op.Delete && !r.m.hasChain(op.Set.Family, chain) && !r.m.refuses(errTables) {
			r.m.tb.Errorf("%s: chain %s, which is to look at it, is not there yet", op, chain)
		}
		out = append(out, r.Tables.Apply(ctx, []nftables.Op{op})...)
	}
	return out
}

// errTables is what a script refuses so that tables stay as they are.
const errTables = "tables"

// chainsOf names, for sets that only chains look at that are not always there, one of these.
var chainsOf = map[string]string{"inside": "inside-pods", "inside-marks": "inside-chosen", "one-packet": "asked"}

func (m *machine) hasChain(f nftables.Family, name string) bool {
	return slices.Contains(m.tables.Chains(f, "kube-hop"), name)
}

func (r refusingTables) Ensure(ctx context.Context, want []nftables.Table) ([]string, error) {
	if r.m.refuses(errTables) {
		return nil, errRefused
	}
	lines, err := r.Tables.Ensure(ctx, want)
	for _, t := range want {
		for set, chain := range chainsOf {
			if n := r.m.tables.Elements(t.ID(set)); n > 0 && !r.m.hasChain(t.Family, chain) {
				r.m.tb.Errorf("set %s of %s has %d elements, and chain %s is not there", set, t.Family, n, chain)
			}
		}
	}
	return lines, err
}

func (r refusingTables) Holds(ctx context.Context, set nftables.SetID, keys ...nftables.Key) (map[nftables.Key]bool, error) {
	r.m.looked++
	if r.m.refuses("look for elements of " + set.String()) {
		return nil, errRefused
	}
	return r.Tables.Holds(ctx, set, keys...)
}

// Apply implements proxier.HealthServers: ports that the script refused are taken.
func (m *machine) Apply(_ context.Context, service lb.Name, want []lb.HealthCheck) error {
	delete(m.health, service)
	for _, c := range want {
		if m.refuses(fmt.Sprintf("health check %d", c.Port)) {
			return errRefused
		}
	}
	if len(want) > 0 {
		m.health[service] = want
	}
	return nil
}

func (m *machine) refuses(op string) bool { return m.refused != "" && strings.Contains(op, m.refused) }

// settle repeats a step until nothing waits for a retry, as the loop does. Without injected failures the first run
// is the only one.
func (m *machine) settle(step func(context.Context)) {
	m.last, m.looked = nil, 0
	m.daemon.Observe = func(done render.Plan) { m.last = append(m.last, done...) }
	step(context.Background())
	for range 50 {
		if m.flaky == 0 || m.refused != "" || m.failing() == 0 {
			return
		}
		m.now = m.now.Add(time.Minute)
		m.daemon.Sync(context.Background())
		if m.failing() > 0 {
			m.daemon.Drain(context.Background())
		}
	}
}

// drain looks at what drains, and again while operations fail, as the loop does every second.
func (m *machine) drain(ctx context.Context) {
	m.daemon.Drain(ctx)
	for range m.flaky {
		m.now = m.now.Add(time.Second)
		m.daemon.Sync(ctx)
		m.daemon.Drain(ctx)
	}
}

// dump prints what the kernel holds, ours and that of others.
func (m *machine) dump(w io.Writer) error {
	ctx := context.Background()
	kernel, err := m.table.Dump(ctx)
	if err != nil {
		return err
	}
	sets, err := m.sets.Dump(ctx, append(render.Sets(lb.IPv4), render.Sets(lb.IPv6)...))
	if err != nil {
		return err
	}
	if sets[loopback.SetName], err = m.looped.Dump(ctx); err != nil {
		return err
	}
	everything := render.Config{NFTables: true, IPv4: true, IPv6: true}
	elements, err := m.tables.Dump(ctx, render.Tables(render.Facts{}, everything, render.Uses{}))
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, render.StateOf(kernel, sets, elements).Text())
	return err
}

// load reads YAML files of a script by the code that the daemon's --from uses.
func load(ts *testscript.TestScript, files []string) informers.Snapshot {
	dir, err := os.MkdirTemp(ts.Getenv("WORK"), "apply")
	ts.Check(err)
	for _, f := range files {
		ts.Check(os.WriteFile(filepath.Join(dir, filepath.Base(f)), []byte(ts.ReadFile(f)), 0o600))
	}
	snapshot, problems, err := informers.LoadFolder(dir, "n1")
	ts.Check(err)
	for _, p := range problems {
		fmt.Fprintln(ts.Stderr(), p)
	}
	for _, p := range snapshot.Problems {
		fmt.Fprintln(ts.Stderr(), p)
	}
	return snapshot
}
