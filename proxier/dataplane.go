package proxier

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// Dataplane is the kernel, behind one small contract for each kind of state.
type Dataplane struct {
	IPVS ipvs.Table
	Sets iptables.Sets
	// Loopback is nil where node ports cannot answer on loopback.
	Loopback loopback.Table
	// Rules has one entry for each family that is served.
	Rules map[lb.Family]iptables.Rules
	// NFT is nil where the kernel has no nf_tables; render.Config.NFTables says the same.
	NFT nftables.Tables
	// Flows is the connection tracking table. It may be nil: stale flows then end by themselves.
	Flows conntrack.Table
	// Sysctls sets the kernel settings that differ from what IPVS needs. It returns what it changed, a line each,
	// and what it could not change. It may be nil.
	Sysctls func(ctx context.Context) (changed []string, err error)
	// Scheduler returns why the kernel has no IPVS scheduler of a name, nil if it has. It may be nil: all are there.
	Scheduler func(ctx context.Context, name string) error
}

// families returns the served families in order.
func (d Dataplane) families() []lb.Family {
	var out []lb.Family
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		if d.Rules[f] != nil {
			out = append(out, f)
		}
	}
	return out
}

// failure is an operation that the kernel refused.
type failure struct {
	op  render.Op
	err error
}

// errWithheld marks operations that were not tried because an earlier one on the same frontend or address failed.
var errWithheld = errors.New("withheld because an earlier operation failed")

// run executes a plan phase by phase and returns the operations that took effect, in order and in one piece or more, and
// those that failed or were withheld because of a failure before them. Failures of one frontend never hold up another. The
// plan is not changed, and others may read it meanwhile.
func (d Dataplane) run(ctx context.Context, plan render.Plan) (done []render.Plan, failures []failure) {
	blocked := blocks{keys: map[ipvs.Key]bool{}, vips: map[netip.Prefix]bool{}}
	for len(plan) > 0 {
		n := phaseLen(plan)
		batch := plan[:n]
		if !blocked.empty() {
			batch = nil
			for _, o := range plan[:n] {
				if blocked.holds(o) {
					failures = append(failures, failure{o, errWithheld})
				} else {
					batch = append(batch, o)
				}
			}
		}
		plan = plan[n:]
		failed := d.batch(ctx, batch)
		if len(failed) == 0 {
			done = append(done, batch)
			continue
		}
		for i, o := range batch {
			err := failed[i]
			if err == nil {
				done = append(done, batch[i:i+1])
				continue
			}
			if blocked.holds(o) {
				err = errWithheld // a consequence, such as a real server of a virtual server that was refused
			}
			failures = append(failures, failure{o, err})
			blocked.add(o)
		}
	}
	return done, failures
}

// blocks are the frontends and addresses of which an operation failed.
type blocks struct {
	keys map[ipvs.Key]bool
	vips map[netip.Prefix]bool
}

func (b blocks) empty() bool { return len(b.keys)+len(b.vips) == 0 }

func (b blocks) add(o render.Op) {
	switch {
	case !o.Blocks():
	case o.VIP.IsValid():
		b.vips[o.VIP] = true
	default:
		b.keys[o.Key] = true
	}
}

// holds reports whether an operation must not run: its own frontend or address failed, or the guard of the address
// that the frontend is on.
func (b blocks) holds(o render.Op) bool {
	if o.VIP.IsValid() {
		return b.vips[o.VIP]
	}
	if b.keys[o.Key] {
		return true
	}
	for p := range b.vips { // the few that failed just now
		if p.Contains(o.Key.Addr) {
			return true
		}
	}
	return false
}

// phaseLen returns how many operations at the start of the plan belong to one phase.
func phaseLen(plan render.Plan) int {
	n := slices.IndexFunc(plan, func(o render.Op) bool { return o.Phase != plan[0].Phase })
	if n < 0 {
		return len(plan)
	}
	return n
}

// batch tries the operations of one phase and returns the error of each that failed, by its index.
func (d Dataplane) batch(ctx context.Context, batch render.Plan) map[int]error {
	onIPVS, onSets, onLoopback, onNFT := sorted(batch)
	errs := map[any]error{} // by operation
	if len(onIPVS) > 0 {
		for _, e := range d.IPVS.Apply(ctx, onIPVS) {
			errs[e.Op] = e
		}
	}
	if len(onSets) > 0 {
		for _, e := range d.Sets.Apply(ctx, onSets) {
			errs[e.Op] = e
		}
	}
	if len(onLoopback) > 0 && d.Loopback != nil {
		for _, e := range d.Loopback.Apply(ctx, onLoopback) {
			errs[e.Op] = e
		}
	}
	if len(onNFT) > 0 {
		for _, e := range d.NFT.Apply(ctx, onNFT) {
			errs[e.Op] = e
		}
	}
	if len(errs) == 0 {
		return nil
	}
	failed := map[int]error{}
	for i, o := range batch {
		if err := errs[operationOf(o)]; err != nil {
			failed[i] = err
		}
	}
	return failed
}

// sorted returns the operations by the part of the kernel that they are on.
func sorted(batch render.Plan) (onIPVS []ipvs.Op, onSets, onLoopback []iptables.SetOp, onNFT []nftables.Op) {
	var ofIPVS, ofSets, ofNFT int // almost all of a large batch are of one kind, and growing would copy it several times
	for _, o := range batch {
		switch {
		case o.IPVS != nil:
			ofIPVS++
		case o.NFT != nil:
			ofNFT++
		default:
			ofSets++
		}
	}
	onIPVS, onSets, onNFT = make([]ipvs.Op, 0, ofIPVS), make([]iptables.SetOp, 0, ofSets), make([]nftables.Op, 0, ofNFT)
	for _, o := range batch {
		switch {
		case o.IPVS != nil:
			onIPVS = append(onIPVS, *o.IPVS)
		case o.NFT != nil:
			onNFT = append(onNFT, *o.NFT)
		case o.Set.Set == loopback.SetName:
			onLoopback = append(onLoopback, *o.Set)
		default:
			onSets = append(onSets, *o.Set)
		}
	}
	return onIPVS, onSets, onLoopback, onNFT
}

// operationOf returns the operation's value on its part of the kernel.
func operationOf(o render.Op) any {
	switch {
	case o.IPVS != nil:
		return *o.IPVS
	case o.Set != nil:
		return *o.Set
	default:
		return *o.NFT
	}
}
