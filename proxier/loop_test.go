package proxier_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/iptablestest"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// loopTable counts the calls that change something, and can be told to refuse.
type loopTable struct {
	*ipvstest.Fake

	mu      sync.Mutex
	applied []time.Time
	refuse  bool
	silent  bool // connection counts are not told
	asked   func(ipvs.Key)
}

// onConns sets what is called whenever connection counts are asked for.
func (l *loopTable) onConns(f func(ipvs.Key)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = f
}

func (l *loopTable) Conns(ctx context.Context, k ipvs.Key) (map[ipvs.Dest]ipvs.Conns, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked != nil {
		l.asked(k)
	}
	if l.silent {
		return nil, errRefused
	}
	return l.Fake.Conns(ctx, k)
}

func (l *loopTable) Apply(ctx context.Context, ops []ipvs.Op) []*ipvs.OpError {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applied = append(l.applied, time.Now())
	if l.refuse {
		var out []*ipvs.OpError
		for _, op := range ops {
			out = append(out, &ipvs.OpError{Op: op, Err: errRefused})
		}
		return out
	}
	return l.Fake.Apply(ctx, ops)
}

func (l *loopTable) setRefuse(refuse bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// times returns when calls came since the last time asked.
func (l *loopTable) times() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.applied
	l.applied = nil
	return out
}

func (l *loopTable) virtualServers(t *testing.T) int {
	t.Helper()
	s, err := l.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(s.Virtual)
}

func newLoop(minSync time.Duration) (*proxier.Proxier, *loopTable) {
	return newLoopWith(minSync, iptablestest.NewFakeSets())
}

func newLoopWith(minSync time.Duration, sets iptables.Sets) (*proxier.Proxier, *loopTable) {
	table := &loopTable{Fake: ipvstest.NewFake(nodeAddresses...)}
	plane := proxier.Dataplane{IPVS: table, Sets: sets, Rules: map[lb.Family]iptables.Rules{lb.IPv4: iptablestest.NewFakeRules()}}
	return proxier.New(loopConfig(minSync), plane, metrics.New(), time.Now), table
}

// newLoopOn returns a proxier on a kernel that already has sets and rules.
func newLoopOn(sets iptables.Sets, rules iptables.Rules) *proxier.Proxier {
	plane := proxier.Dataplane{IPVS: ipvstest.NewFake(nodeAddresses...), Sets: sets, Rules: map[lb.Family]iptables.Rules{lb.IPv4: rules}}
	return proxier.New(loopConfig(0), plane, metrics.New(), time.Now)
}

// loopRules are the rules that such a proxier wants.
func loopRules() iptables.Ruleset { return render.Skeleton(lb.IPv4, lb.Node{}, loopConfig(0).Render) }

func loopConfig(minSync time.Duration) proxier.Config {
	return proxier.Config{
		NodeName: "n1", Render: render.Config{Scheduler: "rr", IPv4: true, MasqueradeBit: 14},
		MinSyncPeriod: minSync, SyncPeriod: 30 * time.Second, DrainTimeout: time.Minute,
	}
}

func service(n int) lb.Service {
	return lb.Service{
		Name:       lb.Name{Namespace: "default", Name: fmt.Sprintf("s%d", n)},
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(n)})},
		Ports:      []lb.ServicePort{{Proto: lb.TCP, Port: 80}},
	}
}

// run runs the loop for one test, and sees that it ends with its context and leaves nothing running.
func run(t *testing.T, p *proxier.Proxier, test func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	test()
	stop()
	<-ended
}

func TestNothingIsProgrammedBeforeSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, table := newLoop(time.Second)
		run(t, p, func() {
			p.Tracker.SetService(service(1))
			time.Sleep(time.Hour)
			if n := table.virtualServers(t); n != 0 || p.Status.Started() {
				t.Errorf("%d virtual servers before the source has synced", n)
			}
			p.Tracker.Synced()
			synctest.Wait()
			if n := table.virtualServers(t); n != 1 || !p.Status.Started() {
				t.Errorf("%d virtual servers after it has, want 1", n)
			}
		})
	})
}

// TestRulesAreMadeWhileServicesAreListed: rules that lead nowhere yet are in place before the first Service is known.
func TestRulesAreMadeWhileServicesAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := iptablestest.NewFakeRules()
		p := newLoopOn(iptablestest.NewFakeSets(), rules)
		run(t, p, func() {
			synctest.Wait()
			if lacking, err := rules.Check(t.Context(), loopRules()); err != nil || len(lacking) > 0 {
				t.Errorf("before the source has synced, rules lack %v, error %v", lacking, err)
			}
		})
	})
}

// TestNodeInServiceKeepsItsRules: rules of an older version stay until all that newer ones look up is known.
func TestNodeInServiceKeepsItsRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sets, rules := iptablestest.NewFakeSets(), iptablestest.NewFakeRules()
		older := loopRules()
		older.Chains = slices.Clone(older.Chains)
		older.Chains[0].Rules = older.Chains[0].Rules[1:]
		if err := errors.Join(sets.Ensure(t.Context(), render.Sets(lb.IPv4)), rules.Apply(t.Context(), older)); err != nil {
			t.Fatal(err)
		}
		served := iptables.Entry{Prefix: netip.MustParsePrefix("10.96.0.1/32"), Proto: uint8(ipvs.TCP), Port: 80}
		if failed := sets.Apply(t.Context(), []iptables.SetOp{{Set: "KUBE-HOP-SERVED", Entry: served}}); failed != nil {
			t.Fatal(failed)
		}
		p := newLoopOn(sets, rules)
		run(t, p, func() {
			synctest.Wait()
			if changed, err := rules.Check(t.Context(), older); err != nil || len(changed) > 0 {
				t.Errorf("before the source has synced, rules differ in %v, error %v", changed, err)
			}
			p.Tracker.Synced()
			synctest.Wait()
			if lacking, err := rules.Check(t.Context(), loopRules()); err != nil || len(lacking) > 0 {
				t.Errorf("after it has, rules lack %v, error %v", lacking, err)
			}
		})
	})
}

// TestManyServicesInParts: on an empty kernel the API server's Service is there before the others, and a cluster of
// any size comes in parts, each of which is whole.
func TestManyServicesInParts(t *testing.T) {
	const n = 3000
	p, table := newLoop(time.Second)
	for i := range n {
		s := service(0)
		s.Name.Name = fmt.Sprintf("s%d", i)
		s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
		p.Tracker.SetService(s)
	}
	api := service(0)
	api.Name.Name, api.ClusterIPs[0] = "kubernetes", netip.MustParseAddr("10.97.0.1")
	p.Tracker.SetService(api)
	p.Tracker.Synced()

	var parts []int
	var opened []ipvs.Key
	p.Observe = func(done render.Plan) {
		switch done[0].Phase {
		case render.PhaseServe:
			parts = append(parts, len(done))
		case render.PhaseOpen:
			for _, o := range done {
				opened = append(opened, o.Key)
			}
		default:
		}
	}
	p.Sync(t.Context())
	if got := table.virtualServers(t); got != n+1 || len(opened) != n+1 {
		t.Fatalf("%d virtual servers, %d frontends opened, want %d", got, len(opened), n+1)
	}
	if opened[0].Addr != api.ClusterIPs[0] || parts[0] != 1 {
		t.Errorf("first came %s in a part of %d, want the API server's Service alone", opened[0], parts[0])
	}
	if slices.Max(parts) > 512 {
		t.Errorf("parts of %v virtual servers", parts)
	}
}

// TestForeignSetCostsOnlyWhatNeedsIt: another program's set in the place of one of ours keeps nothing else from being
// served, and a frontend that needs it stays closed.
func TestForeignSetCostsOnlyWhatNeedsIt(t *testing.T) {
	sets := iptablestest.NewFakeSets()
	foreign := iptables.Set{Name: "KUBE-HOP-RANGE", Type: iptables.HashNet, Family: iptables.IPv4, MaxElem: 10}
	if err := sets.Ensure(t.Context(), []iptables.Set{foreign}); err != nil {
		t.Fatal(err)
	}
	p, table := newLoopWith(0, sets)
	ranged := service(2)
	ranged.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("203.0.113.2")}
	ranged.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	p.Tracker.SetService(service(1))
	p.Tracker.SetService(ranged)
	p.Tracker.Synced()
	p.Sync(t.Context())
	state, err := table.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"10.96.0.1": true, "10.96.0.2": true, "203.0.113.2": false} {
		_, got := state.Virtual[ipvs.Key{Addr: netip.MustParseAddr(addr), Port: 80, Proto: ipvs.TCP}]
		if got != want {
			t.Errorf("virtual server at %s: %v, want %v", addr, got, want)
		}
	}
}

func TestLoneChangeIsAppliedAtOnceAndABurstIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, table := newLoop(time.Second)
		run(t, p, func() {
			p.Tracker.Synced()
			time.Sleep(45 * time.Second)
			table.times()

			changed := time.Now()
			p.Tracker.SetService(service(1))
			synctest.Wait()
			if got := table.times(); len(got) == 0 || !got[len(got)-1].Equal(changed) {
				t.Errorf("a lone change was applied at %v, not at once (%v)", got, changed)
			}

			for n := 2; n < 52; n++ {
				p.Tracker.SetService(service(n))
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(2 * time.Second)
			// One sync is two calls here: virtual servers, then addresses.
			if got := table.times(); len(got) != 2 || got[0].Sub(changed) < time.Second {
				t.Errorf("a burst of 50 changes in half a second was applied at %v, want once, a second after %v", got, changed)
			}
			if n := table.virtualServers(t); n != 51 {
				t.Errorf("%d virtual servers, want 51", n)
			}
		})
	})
}

func TestFailedOperationsAreRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, table := newLoop(0)
		run(t, p, func() {
			p.Tracker.Synced()
			synctest.Wait()
			table.setRefuse(true)
			table.times()
			p.Tracker.SetService(service(1))
			begin := time.Now()
			time.Sleep(10 * time.Second)
			var got []time.Duration // of attempts, which take several calls each
			for _, at := range table.times() {
				if d := at.Sub(begin); !slices.Contains(got, d) {
					got = append(got, d)
				}
			}
			if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(got, want) {
				t.Errorf("attempts after %v, want %v", got, want)
			}
			time.Sleep(time.Minute)
			if ok, _ := p.Status.Healthy(); ok {
				t.Error("healthy, though a change has not reached the kernel for more than two sync periods")
			}
			table.setRefuse(false)
			time.Sleep(31 * time.Second)
			if ok, _ := p.Status.Healthy(); !ok || table.virtualServers(t) != 1 {
				t.Errorf("not healed: healthy %v, %d virtual servers", ok, table.virtualServers(t))
			}
		})
	})
}

func TestDriftIsRepairedWithinTheSyncPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, table := newLoop(0)
		run(t, p, func() {
			p.Tracker.SetService(service(1))
			p.Tracker.Synced()
			synctest.Wait()
			table.Fake.Load(ipvs.State{})
			time.Sleep(31 * time.Second)
			if n := table.virtualServers(t); n != 1 {
				t.Errorf("%d virtual servers a sync period after they were cleared, want 1", n)
			}
		})
	})
}

// TestDrainingThatCannotBeRead: a failure to look at what drains ends with the draining, and the loop comes to rest.
func TestDrainingThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, table := newLoop(0)
		run(t, p, func() {
			slice := lb.EndpointSlice{
				Name: lb.Name{Namespace: "default", Name: "s1-1"}, Service: service(1).Name, Family: lb.IPv4,
				Ports:     []lb.EndpointPort{{Proto: lb.TCP, Port: 80}},
				Endpoints: []lb.Endpoint{{Addr: netip.MustParseAddr("10.244.1.5"), Ready: true, Serving: true}},
			}
			p.Tracker.SetService(service(1))
			p.Tracker.SetEndpointSlice(slice)
			p.Tracker.Synced()
			synctest.Wait()
			table.mu.Lock()
			table.silent = true
			table.mu.Unlock()
			p.Tracker.DeleteEndpointSlice(slice.Name)
			time.Sleep(2*time.Minute + time.Second) // the deadline is after a minute
			s, err := table.Dump(t.Context())
			for k, v := range s.Virtual {
				if len(v.Real) > 0 || err != nil {
					t.Errorf("after its deadline: %s has %v, %v", k, v.Real, err)
				}
			}
			if ok, _ := p.Status.Healthy(); !ok {
				t.Error("unhealthy, though nothing drains any more")
			}
		})
	})
}

// manyDrains is how many Services drain in the tests of that: more than are looked at together, by far.
const manyDrains = 3000

// drainMany runs the loop with that many Services, whose only endpoint leaves them. The hook is called whenever the connections of one
// are asked for, with how many were before.
func drainMany(t *testing.T, hook func(p *proxier.Proxier, before int, key ipvs.Key, gone lb.EndpointSlice)) (*proxier.Proxier, *loopTable, func(test func())) {
	t.Helper()
	p, table := newLoop(0)
	gone := map[netip.Addr]lb.EndpointSlice{}
	for i := range manyDrains {
		s := service(0)
		s.Name.Name = fmt.Sprintf("s%d", i)
		s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
		slice := lb.EndpointSlice{
			Name: s.Name, Service: s.Name, Family: lb.IPv4, Ports: []lb.EndpointPort{{Proto: lb.TCP, Port: 80}},
			Endpoints: []lb.Endpoint{{Addr: netip.MustParseAddr("10.244.1.5"), Ready: true, Serving: true}},
		}
		p.Tracker.SetService(s)
		p.Tracker.SetEndpointSlice(slice)
		gone[s.ClusterIPs[0]] = slice
	}
	return p, table, func(test func()) {
		run(t, p, func() {
			p.Tracker.Synced()
			synctest.Wait()
			asked := 0
			table.onConns(func(k ipvs.Key) {
				hook(p, asked, k, gone[k.Addr])
				asked++
			})
			for _, slice := range gone {
				p.Tracker.DeleteEndpointSlice(slice.Name)
			}
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
			test()
		})
	}
}

// TestChangesDoNotWaitForDraining: when thousands of Services drain, a change is applied long before all of them are looked at.
func TestChangesDoNotWaitForDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, when := 0, 0
		change := service(1)
		change.Name.Name = "change"
		change.ClusterIPs[0] = netip.MustParseAddr("10.97.0.1")
		p, _, drain := drainMany(t, func(p *proxier.Proxier, before int, _ ipvs.Key, _ lb.EndpointSlice) {
			if asked = before + 1; asked == 1 {
				p.Tracker.SetService(change)
			}
		})
		p.Observe = func(done render.Plan) {
			if done[0].Key.Addr == change.ClusterIPs[0] && when == 0 {
				when = asked
			}
		}
		drain(func() {
			if asked != manyDrains || when == 0 || when > manyDrains/2 {
				t.Errorf("the change was applied when %d of %d virtual servers were looked at (%d in all)", when, manyDrains, asked)
			}
		})
	})
}

// TestEndpointComesBackWhileOthersAreLookedAt: what was found of it before does not count any more, and it stays.
func TestEndpointComesBackWhileOthersAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first ipvs.Key
		_, table, drain := drainMany(t, func(p *proxier.Proxier, before int, k ipvs.Key, gone lb.EndpointSlice) {
			if before == 0 {
				first = k
				p.Tracker.SetEndpointSlice(gone)
			}
		})
		drain(func() {
			state, err := table.Dump(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			left := 0
			for _, v := range state.Virtual {
				left += len(v.Real)
			}
			if back := state.Virtual[first].Real; left != 1 || len(back) != 1 || back[0].Weight == 0 {
				t.Errorf("the endpoint that came back is %v, and %d are left in all, want it alone", back, left)
			}
		})
	})
}

// lockedRules cannot be applied for a while, as when another program holds the xtables lock.
type lockedRules struct {
	iptables.Rules
	until time.Time
}

func (l lockedRules) Apply(ctx context.Context, want iptables.Ruleset) error {
	if time.Now().Before(l.until) {
		return iptables.ErrLocked
	}
	return l.Rules.Apply(ctx, want)
}

// TestNothingIsExposedWithoutItsRules: guards and masquerading come first, and a family whose rules fail waits alone.
func TestNothingIsExposedWithoutItsRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &loopTable{Fake: ipvstest.NewFake(nodeAddresses...)}
		plane := proxier.Dataplane{IPVS: table, Sets: iptablestest.NewFakeSets(), Rules: map[lb.Family]iptables.Rules{
			lb.IPv4: lockedRules{iptablestest.NewFakeRules(), time.Now().Add(20 * time.Second)},
			lb.IPv6: iptablestest.NewFakeRules(),
		}}
		cfg := loopConfig(0)
		cfg.Render.IPv6 = true
		p := proxier.New(cfg, plane, metrics.New(), time.Now)
		run(t, p, func() {
			s := service(1)
			s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr("fd96::1"))
			p.Tracker.SetService(s)
			p.Tracker.Synced()
			time.Sleep(19 * time.Second)
			if n := table.virtualServers(t); n != 1 {
				t.Errorf("%d virtual servers while the rules of IPv4 cannot be applied, want that of IPv6 only", n)
			}
			time.Sleep(15 * time.Second)
			if n := table.virtualServers(t); n != 2 {
				t.Errorf("%d virtual servers after the lock was free again, want 2", n)
			}
		})
	})
}

// TestUnhealthyWhileAChangeWaits: a loop that is stuck does not notice; what waits tells.
func TestUnhealthyWhileAChangeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newLoop(0)
		time.Sleep(time.Hour)
		if ok, _ := p.Status.Healthy(); !ok {
			t.Error("unhealthy without a change")
		}
		p.Tracker.SetService(service(1))
		time.Sleep(59 * time.Second)
		if ok, _ := p.Status.Healthy(); !ok {
			t.Error("unhealthy after 59 s")
		}
		time.Sleep(time.Second)
		if ok, _ := p.Status.Healthy(); ok {
			t.Error("healthy though a change has waited for two sync periods")
		}
	})
}
