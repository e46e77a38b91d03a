package proxier_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/iptablestest"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback/loopbacktest"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/nftables/nftablestest"
	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// slowTable takes a second to read everything, and counts how often that and the reading of some is done.
type slowTable struct {
	*ipvstest.Fake

	now   time.Time
	dumps int
	read  map[ipvs.Key]int
}

func (s *slowTable) Dump(ctx context.Context) (ipvs.State, error) {
	s.dumps++
	s.now = s.now.Add(time.Second)
	return s.Fake.Dump(ctx)
}

func (s *slowTable) Read(ctx context.Context, keys []ipvs.Key) (map[ipvs.Key]ipvs.VirtualServer, error) {
	for _, k := range keys {
		s.read[k]++
	}
	return s.Fake.Read(ctx, keys)
}

// largeNode is a node with many Services, where reading everything is dear.
func largeNode(t *testing.T, services int) (*proxier.Proxier, *slowTable, *iptablestest.FakeSets) {
	t.Helper()
	table := &slowTable{Fake: ipvstest.NewFake(nodeAddresses...), now: time.Unix(1_700_000_000, 0), read: map[ipvs.Key]int{}}
	sets := iptablestest.NewFakeSets()
	plane := proxier.Dataplane{IPVS: table, Sets: sets, Rules: map[lb.Family]iptables.Rules{lb.IPv4: iptablestest.NewFakeRules()}}
	p := proxier.New(loopConfig(0), plane, metrics.New(), func() time.Time { return table.now })
	for i := range services {
		s := service(0)
		s.Name.Name = fmt.Sprintf("s%d", i)
		s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
		p.Tracker.SetService(s)
	}
	p.Tracker.Synced()
	p.Sync(t.Context())
	if table.dumps != 1 {
		t.Fatalf("the start reads everything %d times", table.dumps)
	}
	return p, table, sets
}

// TestLargeNodeIsNotReadWholeEachTime: reading everything rests for 400 times as long as it took; meanwhile each virtual
// server is read once in a round.
func TestLargeNodeIsNotReadWholeEachTime(t *testing.T) {
	p, table, _ := largeNode(t, 80)
	for range 10 {
		p.Inspect(t.Context())
	}
	if table.dumps != 1 || len(table.read) != 80 {
		t.Errorf("%d more reads of everything, %d of 80 virtual servers read in ten checks", table.dumps-1, len(table.read))
	}
	for k, n := range table.read {
		if n != 1 {
			t.Errorf("%s was read %d times in a round", k, n)
		}
	}
	table.now = table.now.Add(400 * time.Second)
	p.Inspect(t.Context())
	if table.dumps != 2 {
		t.Errorf("after the rest: %d reads of everything", table.dumps-1)
	}
}

// TestSpotCheckFindsDamage: what one spot check finds is repaired at once, whatever else is damaged with it.
func TestSpotCheckFindsDamage(t *testing.T) {
	for name, damage := range map[string]func(*slowTable, *iptablestest.FakeSets){
		"ipvsadm -C":  func(s *slowTable, _ *iptablestest.FakeSets) { s.Load(ipvs.State{}) },
		"ipset flush": func(_ *slowTable, f *iptablestest.FakeSets) { f.Clear("KUBE-HOP-SERVED") },
		"one is deleted": func(s *slowTable, _ *iptablestest.FakeSets) {
			s.Apply(context.Background(), []ipvs.Op{{Verb: ipvs.DeleteVirtual, Key: someKey}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, table, sets := largeNode(t, 8)
			before, err := table.Fake.Dump(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			damage(table, sets)
			p.Inspect(t.Context())
			after, err := table.Fake.Dump(t.Context())
			if err != nil || len(after.Virtual) != len(before.Virtual) || len(after.Bound) != len(before.Bound) {
				t.Errorf("%v, %d virtual servers of %d", err, len(after.Virtual), len(before.Virtual))
			}
			served := iptables.Set{Name: "KUBE-HOP-SERVED"}
			if n, err := sets.Count(t.Context(), []iptables.Set{served}); err != nil || n[served.Name] != len(before.Virtual) {
				t.Errorf("%v, %d frontends are let through the guard", err, n[served.Name])
			}
			if table.dumps != 2 {
				t.Errorf("%d reads of everything, want one", table.dumps-1)
			}
		})
	}
}

// countedNFT counts the comparisons of tables with what they should be.
type countedNFT struct {
	*nftablestest.Fake

	ensured int
	refuse  error
}

func (c *countedNFT) Ensure(ctx context.Context, want []nftables.Table) ([]string, error) {
	c.ensured++
	if c.refuse != nil {
		return nil, c.refuse
	}
	return c.Fake.Ensure(ctx, want)
}

// nodeWithTables returns a node with nf_tables and one Service.
func nodeWithTables(t *testing.T) (*proxier.Proxier, *slowTable, *countedNFT) {
	t.Helper()
	table := &slowTable{Fake: ipvstest.NewFake(nodeAddresses...), now: time.Unix(1_700_000_000, 0), read: map[ipvs.Key]int{}}
	nft := &countedNFT{Fake: nftablestest.NewFake()}
	config := loopConfig(0)
	config.Render.NFTables = true
	p := proxier.New(config, proxier.Dataplane{
		IPVS: table, Sets: iptablestest.NewFakeSets(), NFT: nft,
		Rules: map[lb.Family]iptables.Rules{lb.IPv4: iptablestest.NewFakeRules()},
	}, metrics.New(), func() time.Time { return table.now })
	p.Tracker.SetService(service(1))
	p.Tracker.Synced()
	p.Sync(t.Context())
	return p, table, nft
}

// TestServedWithoutChains: a Service is served though the chains of what it alone uses cannot be made, and they are made
// when they can be. Changes that use nothing new do not look at the tables.
func TestServedWithoutChains(t *testing.T) {
	p, table, nft := nodeWithTables(t)
	nft.refuse = errors.New("refused")
	onePacket := service(2)
	onePacket.Ports[0].Proto = lb.UDP
	onePacket.SchedulerFlags = lb.SchedulerFlagsSet | lb.OnePacket
	p.Tracker.SetService(onePacket)
	p.Sync(t.Context())
	state, err := table.Fake.Dump(t.Context())
	if err != nil || len(state.Virtual) != 2 || slices.Contains(nft.Chains(nftables.IPv4, "kube-hop"), "asked") {
		t.Errorf("%v, virtual servers %v, chains %v", err, state.Virtual, nft.Chains(nftables.IPv4, "kube-hop"))
	}
	nft.refuse = nil
	table.now = table.now.Add(time.Minute)
	p.Sync(t.Context())
	if chains := nft.Chains(nftables.IPv4, "kube-hop"); !slices.Contains(chains, "asked") {
		t.Errorf("chains %v", chains)
	}
	before := nft.ensured
	p.Tracker.SetService(service(3))
	p.Sync(t.Context())
	if n := nft.ensured - before; n != 0 {
		t.Errorf("the tables were looked at %d times for a change that uses nothing new", n)
	}
}

// TestUnchangedNFTablesAreNotReadAgain: tables and elements are read only if somebody has changed nf_tables since they were last
// found in order. Then whatever is not as it was left is found.
func TestUnchangedNFTablesAreNotReadAgain(t *testing.T) {
	p, table, nft := nodeWithTables(t)
	readsAre := func(when string, want ...int) {
		t.Helper()
		for i, want := range want {
			before, ensured := nft.Dumps(), nft.ensured
			p.Inspect(t.Context())
			if got, tables := nft.Dumps()-before, nft.ensured-ensured; got != want || tables != want {
				t.Errorf("%s, check %d: the elements are read %d times and the tables %d times, want %d", when, i, got, tables, want)
			}
		}
	}
	readsAre("after the start", 1, 0, 0)
	foreign := nftables.Table{Family: nftables.IPv4, Name: "somebody", Sets: []nftables.Set{{Name: "set", Key: nftables.Addr}}}
	if _, err := nft.Fake.Ensure(t.Context(), []nftables.Table{foreign}); err != nil {
		t.Fatal(err)
	}
	readsAre("after a change by others", 1, 0)
	if table.dumps != 1 {
		t.Errorf("%d reads of everything where nothing was damaged", table.dumps-1)
	}

	ours := nftables.SetID{Family: nftables.IPv4, Table: "kube-hop", Name: "frontends"}
	key := nftables.Key{Addr: netip.MustParseAddr("10.96.0.1"), Proto: uint8(ipvs.TCP), Port: 80}
	other := key
	other.Port = 81
	nft.Apply(t.Context(), []nftables.Op{{Set: ours, Key: other}, {Set: ours, Key: key, Delete: true}})
	p.Inspect(t.Context()) // as many as before, but another one
	elements, err := nft.Dump(t.Context(), render.Tables(render.Facts{}, render.Config{NFTables: true, IPv4: true}, render.Uses{}))
	_, back := elements[ours][key]
	if err != nil || !back || len(elements[ours]) != 1 || table.dumps != 2 {
		t.Errorf("%v, elements %v, %d more reads of everything", err, elements[ours], table.dumps-1)
	}
}

// someKey is a virtual server of largeNode.
var someKey = ipvs.Key{Addr: netip.MustParseAddr("10.96.0.7"), Port: 80, Proto: ipvs.TCP}

// TestLostRoutesComeBackAtOnce: the news that somebody took routes away is enough; nothing else is read for it.
func TestLostRoutesComeBackAtOnce(t *testing.T) {
	p, table, _ := largeNode(t, 8)
	before, err := table.Fake.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state := before
	state.Bound = nil
	table.Load(state)
	p.Tracker.BoundMayDiffer()
	<-p.Tracker.Wake()
	p.Sync(t.Context())
	after, err := table.Fake.Dump(t.Context())
	if err != nil || !maps.Equal(after.Bound, before.Bound) || len(before.Bound) == 0 {
		t.Errorf("%v, %d bound prefixes, want %d", err, len(after.Bound), len(before.Bound))
	}
	if table.dumps != 1 || len(table.read) != 0 {
		t.Errorf("%d reads of everything, %d virtual servers read", table.dumps-1, len(table.read))
	}
}

// TestLostLoopbackIsFound: what leads loopback to node ports is looked at even when little else is.
func TestLostLoopbackIsFound(t *testing.T) {
	table := &slowTable{Fake: ipvstest.NewFake(nodeAddresses...), now: time.Unix(1_700_000_000, 0), read: map[ipvs.Key]int{}}
	looped := loopbacktest.NewFake()
	config := loopConfig(0)
	config.Render.Loopback = true
	p := proxier.New(config, proxier.Dataplane{
		IPVS: table, Sets: iptablestest.NewFakeSets(), Loopback: looped,
		Rules: map[lb.Family]iptables.Rules{lb.IPv4: iptablestest.NewFakeRules()},
	}, metrics.New(), func() time.Time { return table.now })
	p.Tracker.SetLocalAddresses(nodeAddresses)
	s := service(1)
	s.Ports[0].NodePort = 30080
	p.Tracker.SetService(s)
	p.Tracker.Synced()
	p.Sync(t.Context())
	for range 2 { // as it was put up, and as it was put right
		entries, err := looped.Dump(t.Context())
		if err != nil || len(entries) != 1 {
			t.Errorf("%v, node ports on loopback: %v, want one", err, entries)
		}
		looped.Clear()
		p.Inspect(t.Context())
	}
}
