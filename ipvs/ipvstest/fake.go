package ipvstest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/kube-hop/kube-hop/ipvs"
)

// schedulers are those of Linux 6.12. Source: net/netfilter/ipvs/Kconfig.
var schedulers = []string{"rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"} //nolint:gochecknoglobals // a constant

// Fake is an ipvs.Table in memory. It behaves as the kernel does, including the errors.
type Fake struct {
	mu      sync.Mutex
	virtual map[ipvs.Key]*virtualServer
	bound   map[netip.Prefix]netip.Addr
	ports   map[ipvs.Key]struct{}
	sources map[bool]netip.Addr // of ports, by whether they are IPv4
	local   []netip.Addr        // addresses that may be sources; nil for all
	ops     []ipvs.Op
}

type virtualServer struct {
	ipvs.Config
	real map[ipvs.Dest]*realServer
}

type realServer struct {
	weight int
	conns  ipvs.Conns
}

var _ ipvs.Table = (*Fake)(nil)

// NewFake returns an empty table. With addresses, only those can be the source of a binding, as only addresses of
// the namespace can in the kernel.
func NewFake(local ...netip.Addr) *Fake {
	return &Fake{virtual: map[ipvs.Key]*virtualServer{}, bound: map[netip.Prefix]netip.Addr{}, ports: map[ipvs.Key]struct{}{}, sources: map[bool]netip.Addr{}, local: local}
}

// Dump implements ipvs.Table.
func (f *Fake) Dump(ctx context.Context) (ipvs.State, error) {
	if err := ctx.Err(); err != nil {
		return ipvs.State{}, fmt.Errorf("dump: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	state := ipvs.State{Virtual: make(map[ipvs.Key]ipvs.VirtualServer, len(f.virtual)), Bound: maps.Clone(f.bound), Ports: map[ipvs.Key]netip.Addr{}}
	for k := range f.ports {
		state.Ports[k] = f.sources[k.Addr.Is4()]
	}
	for k, v := range f.virtual {
		var list []ipvs.RealServer
		for d, r := range v.real {
			list = append(list, ipvs.RealServer{Dest: d, Weight: r.weight})
		}
		slices.SortFunc(list, func(a, b ipvs.RealServer) int { return a.Compare(b.Dest) })
		state.Virtual[k] = ipvs.VirtualServer{Config: v.Config, Real: list}
	}
	return state, nil
}

// Read implements ipvs.Table.
func (f *Fake) Read(ctx context.Context, keys []ipvs.Key) (map[ipvs.Key]ipvs.VirtualServer, error) {
	for _, k := range keys {
		if err := cmp.Or(ctx.Err(), ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}.Validate()); err != nil {
			return nil, fmt.Errorf("read virtual server %s: %w", k, err)
		}
	}
	state, err := f.Dump(ctx)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(state.Virtual, func(k ipvs.Key, _ ipvs.VirtualServer) bool { return !slices.Contains(keys, k) })
	return state.Virtual, nil
}

// Bound implements ipvs.Table.
func (f *Fake) Bound(ctx context.Context) (ipvs.State, error) {
	s, err := f.Dump(ctx)
	s.Virtual = nil
	return s, err
}

// Apply implements ipvs.Table.
func (f *Fake) Apply(ctx context.Context, ops []ipvs.Op) []*ipvs.OpError {
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed []*ipvs.OpError
	for _, op := range ops {
		if err := f.try(ctx, op); err != nil {
			failed = append(failed, &ipvs.OpError{Op: op, Err: err})
		}
	}
	return failed
}

func (f *Fake) try(ctx context.Context, op ipvs.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.ops = append(f.ops, op)
	if err := op.Validate(); err != nil {
		return err
	}
	return f.apply(op)
}

func (f *Fake) apply(op ipvs.Op) error {
	switch op.Verb {
	case ipvs.AddVirtual, ipvs.EditVirtual:
		return f.putVirtual(op)
	case ipvs.DeleteVirtual:
		delete(f.virtual, op.Key)
	case ipvs.AddReal, ipvs.EditReal:
		return f.putReal(op)
	case ipvs.DeleteReal:
		if v := f.virtual[op.Key]; v != nil {
			delete(v.real, op.Real.Dest)
		}
	case ipvs.Bind:
		if err := f.source(op); err != nil {
			return err
		}
		f.bound[op.Prefix] = op.Source
	case ipvs.BindPort:
		if err := f.source(op); err != nil {
			return err
		}
		f.ports[op.Key] = struct{}{}
		f.sources[op.Key.Addr.Is4()] = op.Source
	case ipvs.UnbindPort:
		delete(f.ports, op.Key)
	case ipvs.Unbind:
		delete(f.bound, op.Prefix)
	}
	return nil
}

// source reports whether an operation's source is one that the kernel takes.
func (f *Fake) source(op ipvs.Op) error {
	if op.Source.IsValid() && f.local != nil && !slices.Contains(f.local, op.Source) {
		return fmt.Errorf("source is not an address of the node: %w", syscall.EINVAL)
	}
	return nil
}

func (f *Fake) putVirtual(op ipvs.Op) error {
	if !slices.Contains(schedulers, op.Config.Scheduler) {
		return fmt.Errorf("the kernel has no scheduler %s: %w", op.Config.Scheduler, syscall.ENOENT)
	}
	if v := f.virtual[op.Key]; v != nil {
		v.Config = op.Config
		return nil
	}
	f.virtual[op.Key] = &virtualServer{Config: op.Config, real: map[ipvs.Dest]*realServer{}}
	return nil
}

func (f *Fake) putReal(op ipvs.Op) error {
	v := f.virtual[op.Key]
	if v == nil {
		return fmt.Errorf("no such virtual server: %w", syscall.ESRCH)
	}
	if r := v.real[op.Real.Dest]; r != nil {
		r.weight = op.Real.Weight
		return nil
	}
	if !reachable(op.Real.Addr) {
		return syscall.EINVAL
	}
	v.real[op.Real.Dest] = &realServer{weight: op.Real.Weight}
	return nil
}

// reachable reports whether the kernel takes the address for one host's. Source: ip_vs_new_dest in ip_vs_ctl.c.
func reachable(a netip.Addr) bool {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return !a.IsUnspecified() && !a.IsMulticast() && a != broadcast && !(a.Is6() && a.IsLinkLocalUnicast())
}

// Conns implements ipvs.Table with the counts of SetConns.
func (f *Fake) Conns(ctx context.Context, k ipvs.Key) (map[ipvs.Dest]ipvs.Conns, error) {
	if err := cmp.Or(ctx.Err(), ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}.Validate()); err != nil {
		return nil, fmt.Errorf("connections of %s: %w", k, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.virtual[k]
	if v == nil {
		return nil, nil
	}
	conns := make(map[ipvs.Dest]ipvs.Conns, len(v.real))
	for d, r := range v.real {
		conns[d] = r.conns
	}
	return conns, nil
}

// SetConns sets the connection counts of a real server, and panics if there is none: the test is wrong then.
func (f *Fake) SetConns(k ipvs.Key, d ipvs.Dest, c ipvs.Conns) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.virtual[k]; v == nil || v.real[d] == nil {
		panic(fmt.Sprintf("ipvstest: no real server %s of %s", d, k))
	}
	f.virtual[k].real[d].conns = c
}

// Load replaces everything with a state, as if others had programmed it: also what Apply would refuse, such as
// foreign weights.
func (f *Fake) Load(s ipvs.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.virtual, f.bound, f.ports = map[ipvs.Key]*virtualServer{}, map[netip.Prefix]netip.Addr{}, map[ipvs.Key]struct{}{}
	maps.Copy(f.bound, s.Bound)
	for k, source := range s.Ports {
		f.ports[k] = struct{}{}
		f.sources[k.Addr.Is4()] = source
	}
	for k, vs := range s.Virtual {
		v := &virtualServer{Config: vs.Config, real: map[ipvs.Dest]*realServer{}}
		for _, r := range vs.Real {
			v.real[r.Dest] = &realServer{weight: r.Weight}
		}
		f.virtual[k] = v
	}
}

// TakeOps returns the operations that were tried since the last call, in order, and forgets them.
func (f *Fake) TakeOps() []ipvs.Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := f.ops
	f.ops = nil
	return ops
}
