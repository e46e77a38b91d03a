package ipvsnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// Dump implements ipvs.Table: of IPv4 one call for all virtual servers and one for the real servers of each, of IPv6 one
// list for all and one for each, and those of Bound.
func (t *Table) Dump(ctx context.Context) (ipvs.State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	virtual, err := t.dumpVirtual(ctx)
	if err != nil {
		return ipvs.State{}, err
	}
	state, err := t.dumpLocal(ctx)
	if err != nil {
		return ipvs.State{}, err
	}
	state.Virtual = virtual
	return state, nil
}

func (t *Table) dumpVirtual(ctx context.Context) (map[ipvs.Key]ipvs.VirtualServer, error) {
	all, err := t.listVirtual(ctx)
	if err != nil {
		return nil, fmt.Errorf("dump virtual servers: %w", err)
	}
	virtual := make(map[ipvs.Key]ipvs.VirtualServer, len(all))
	for i := range all {
		k, config, err := fromService(&all[i].Service)
		if err != nil {
			return nil, fmt.Errorf("dump virtual servers: %w", err)
		}
		// One that was deleted meanwhile has no real servers.
		list, err := t.dumpReal(ctx, k, all[i].reals)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("dump real servers of %s: %w", k, err)
		}
		virtual[k] = ipvs.VirtualServer{Config: config, Real: list}
	}
	return virtual, nil
}

// unknown is a number of real servers that the kernel has not told.
const unknown = -1

// listVirtual lists the virtual servers, and how many real servers each of them has, or unknown.
func (t *Table) listVirtual(ctx context.Context) (all []listed, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rest := func(uint16) bool { return true }
	if t.options != nil {
		if all, err = t.options.virtuals(); err != nil {
			return nil, err
		}
		rest = func(family uint16) bool { return family != unix.AF_INET }
	}
	services, err := t.lists.virtuals(rest)
	if err == nil && len(services) > 0 {
		// A listing can pass over one, but hardly the same one twice.
		var again []libipvs.Service
		again, err = t.lists.virtuals(rest)
		services = union(services, again)
	}
	for _, s := range services {
		all = append(all, listed{s, unknown})
	}
	return all, err
}

// union returns the virtual servers of a and those that only b has.
func union(a, b []libipvs.Service) []libipvs.Service {
	seen := make(map[ipvs.Key]bool, len(a))
	for i := range a {
		if k, err := keyOf(&a[i]); err == nil {
			seen[k] = true
		}
	}
	for i := range b {
		if k, err := keyOf(&b[i]); err == nil && !seen[k] {
			a = append(a, b[i])
		}
	}
	return a
}

// Read implements ipvs.Table.
func (t *Table) Read(ctx context.Context, keys []ipvs.Key) (map[ipvs.Key]ipvs.VirtualServer, error) {
	virtual := make(map[ipvs.Key]ipvs.VirtualServer, len(keys))
	for _, k := range keys {
		v, exists, err := t.readVirtual(ctx, k)
		if err != nil {
			return nil, fmt.Errorf("read virtual server %s: %w", k, err)
		}
		if exists {
			virtual[k] = v
		}
	}
	return virtual, nil
}

func (t *Table) readVirtual(ctx context.Context, k ipvs.Key) (v ipvs.VirtualServer, exists bool, err error) {
	if err := errors.Join(ctx.Err(), ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}.Validate()); err != nil {
		return v, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	found, err := t.getVirtual(k)
	if err == nil {
		_, v.Config, err = fromService(&found.Service)
	}
	if err == nil {
		v.Real, err = t.dumpReal(ctx, k, found.reals)
	}
	if errors.Is(err, unix.ESRCH) {
		return ipvs.VirtualServer{}, false, nil
	}
	return v, err == nil, err
}

// getVirtual asks for one virtual server; ESRCH if there is none.
func (t *Table) getVirtual(k ipvs.Key) (listed, error) {
	if t.options.serves(k) {
		return t.options.virtual(k)
	}
	asked := service(k, ipvs.Config{})
	found, err := t.vs.GetService(&asked)
	if err != nil {
		return listed{}, err //nolint:wrapcheck // the caller wraps it with the key
	}
	return listed{*found, unknown}, nil
}

// dumpReal returns the real servers of a virtual server, of which the kernel has told how many there are, or not.
func (t *Table) dumpReal(ctx context.Context, k ipvs.Key, reals int) ([]ipvs.RealServer, error) {
	if err := ctx.Err(); err != nil || reals == 0 {
		return nil, err
	}
	var list []ipvs.RealServer
	if t.options.serves(k) {
		entries, err := t.options.reals(k)
		if err != nil {
			return nil, err
		}
		list = make([]ipvs.RealServer, 0, len(entries))
		for i := range entries {
			list = append(list, entries[i].told().real())
		}
	}
	if len(list) != reals { // or there are such that only netlink can tell
		told, err := t.lists.reals(k)
		if err != nil {
			return nil, err
		}
		list = make([]ipvs.RealServer, 0, len(told))
		for _, r := range told {
			list = append(list, r.real())
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	slices.SortFunc(list, func(a, b ipvs.RealServer) int { return a.Compare(b.Dest) })
	// An answer of several messages can repeat an entry when someone adds another one in between.
	return slices.CompactFunc(list, func(a, b ipvs.RealServer) bool { return a.Dest == b.Dest }), nil
}

// Conns implements ipvs.Table.
func (t *Table) Conns(ctx context.Context, k ipvs.Key) (map[ipvs.Dest]ipvs.Conns, error) {
	err := errors.Join(ctx.Err(), ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}.Validate())
	if err != nil {
		return nil, fmt.Errorf("connections of %s: %w", k, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	conns, err := t.conns(k)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("connections of %s: %w", k, err)
	}
	return conns, nil
}

func (t *Table) conns(k ipvs.Key) (map[ipvs.Dest]ipvs.Conns, error) {
	if t.options.serves(k) {
		entries, err := t.options.reals(k)
		if err != nil {
			return nil, err
		}
		conns := make(map[ipvs.Dest]ipvs.Conns, len(entries))
		for i := range entries {
			r := entries[i].told()
			conns[r.dest] = r.conns
		}
		return conns, nil
	}
	told, err := t.lists.reals(k)
	if err != nil {
		return nil, err
	}
	// The kernel lists the real servers of an absent virtual server as none at all.
	if len(told) == 0 {
		if _, err := t.getVirtual(k); err != nil {
			return nil, err
		}
	}
	conns := make(map[ipvs.Dest]ipvs.Conns, len(told))
	for _, r := range told {
		conns[r.dest] = r.conns
	}
	return conns, nil
}

// Bound implements ipvs.Table.
func (t *Table) Bound(ctx context.Context) (ipvs.State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dumpLocal(ctx)
}

// dumpLocal finds what is bound: one request per address family for the prefixes, two for the ports.
func (t *Table) dumpLocal(ctx context.Context) (ipvs.State, error) {
	bound, err := t.dumpBound(ctx)
	if err != nil {
		return ipvs.State{}, err
	}
	ports, err := t.dumpPorts(ctx)
	return ipvs.State{Bound: bound, Ports: ports}, err
}

// dumpBound finds our routes. Where the device is gone, so are they.
func (t *Table) dumpBound(ctx context.Context) (map[netip.Prefix]netip.Addr, error) {
	bound := map[netip.Prefix]netip.Addr{}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dump bound prefixes: %w", err)
	}
	device, err := t.findDevice()
	if err != nil {
		return nil, fmt.Errorf("dump bound prefixes: %w", err)
	}
	if device == nil {
		return bound, nil
	}
	err = retryDump(func() error {
		clear(bound) // what an interrupted dump returned may be gone
		for _, family := range families {
			if err := t.eachBound(family, device.Attrs().Index, bound); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("dump bound prefixes: %w", err)
	}
	return bound, nil
}

// eachBound adds our routes of one address family to bound.
func (t *Table) eachBound(family, index int, bound map[netip.Prefix]netip.Addr) error {
	filter := &netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_LOCAL, Protocol: RouteProtocol}
	const mask = netlink.RT_FILTER_TABLE | netlink.RT_FILTER_OIF | netlink.RT_FILTER_PROTOCOL
	return t.routes.RouteListFilteredIter(family, filter, mask, func(r netlink.Route) bool { //nolint:wrapcheck // by the caller
		if p, source, ok := fromRoute(&r); ok {
			bound[p] = source
		}
		return true
	})
}

// retryDump repeats a dump that the kernel calls inconsistent, because something changed meanwhile. Only a few times:
// on a busy node every one might be.
func retryDump(dump func() error) error {
	var err error
	for range 10 {
		if err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return err
}
