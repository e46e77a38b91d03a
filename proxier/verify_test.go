package proxier_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/iptablestest"
	"github.com/kube-hop/kube-hop/ipvs/ipvstest"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/nftables/nftablestest"
	"github.com/kube-hop/kube-hop/proxier"
)

// steps notes what is done to the kernel, in order.
type steps struct {
	mu   sync.Mutex
	done []string
}

func (s *steps) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, what)
}

type (
	notingSets struct {
		iptables.Sets
		*steps
	}
	notingTables struct {
		nftables.Tables
		*steps
	}
)

func (n notingSets) Ensure(ctx context.Context, sets []iptables.Set) error {
	defer n.note("sets prepared")
	return n.Sets.Ensure(ctx, sets)
}

func (n notingSets) Dump(ctx context.Context, sets []iptables.Set) (iptables.SetState, error) {
	n.note("sets read")
	return n.Sets.Dump(ctx, sets)
}

func (n notingTables) Ensure(ctx context.Context, want []nftables.Table) ([]string, error) {
	defer n.note("tables prepared")
	return n.Tables.Ensure(ctx, want)
}

func (n notingTables) Dump(ctx context.Context, of []nftables.Table) (nftables.State, error) {
	n.note("tables read")
	return n.Tables.Dump(ctx, of)
}

// TestReadAfterPrepared: preparing replaces sets and tables of another type, and what they held is gone. It is read when that
// is done, or the daemon would take for programmed what is not there any more.
func TestReadAfterPrepared(t *testing.T) {
	var s steps
	config := loopConfig(0)
	config.Render.NFTables = true
	p := proxier.New(config, proxier.Dataplane{
		IPVS: ipvstest.NewFake(nodeAddresses...), Sets: notingSets{iptablestest.NewFakeSets(), &s},
		Rules: map[lb.Family]iptables.Rules{lb.IPv4: iptablestest.NewFakeRules()}, NFT: notingTables{nftablestest.NewFake(), &s},
	}, metrics.New(), time.Now)
	p.Tracker.Synced()
	p.Verify(t.Context())
	for _, kind := range []string{"sets", "tables"} {
		prepared, read := slices.Index(s.done, kind+" prepared"), slices.Index(s.done, kind+" read")
		if prepared < 0 || read < prepared {
			t.Errorf("%s are read before they are prepared: %q", kind, s.done)
		}
	}
}
