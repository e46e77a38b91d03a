package ipvsnl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// procFrom is the number of virtual servers from which Dump reads all real servers at once from /proc/net/ip_vs in
// place of one request for each. It costs a fraction, but does not show connection thresholds that others have set.
const procFrom = 500

// Dump implements ipvs.Table: one request for all virtual servers, one for the real servers of each (or one file for
// all), and those of Bound.
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
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dump virtual servers: %w", err)
	}
	inProc := t.startProc()
	services, err := t.vs.GetServices()
	known := <-inProc
	if err != nil {
		return nil, fmt.Errorf("dump virtual servers: %w", err)
	}
	virtual := make(map[ipvs.Key]ipvs.VirtualServer, len(services))
	if t.few = len(services) < t.procFrom; t.few {
		known = nil
	} else if known == nil {
		known = t.readProc()
	}
	if services, err = t.withMissed(services, known); err != nil {
		return nil, fmt.Errorf("dump virtual servers: %w", err)
	}
	for _, s := range services {
		k, config, err := fromService(s)
		if err != nil {
			return nil, fmt.Errorf("dump virtual servers: %w", err)
		}
		if list, ok := known[k]; ok {
			virtual[k] = ipvs.VirtualServer{Config: config, Real: list}
			continue
		}
		// One that was deleted meanwhile has no real servers: the kernel's answer is empty, not an error.
		list, err := t.dumpReal(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("dump real servers of %s: %w", k, err)
		}
		virtual[k] = ipvs.VirtualServer{Config: config, Real: list}
	}
	return virtual, nil
}

// oneMessage is fewer virtual servers than fill one message of the kernel's answer.
const oneMessage = 64

// withMissed returns the listed virtual servers and those that the listing missed. Between two messages of its answer the
// kernel remembers a position among the virtual servers of all network namespaces (ip_vs_genl_dump_services in ip_vs_ctl.c,
// Linux 6.12): when somebody deletes one in any of them, one of ours can be passed over. What /proc shows does not depend on
// others; without that, a second listing hardly misses the same one.
func (t *Table) withMissed(listed []*libipvs.Service, known map[ipvs.Key][]ipvs.RealServer) ([]*libipvs.Service, error) {
	if len(listed) < oneMessage {
		return listed, nil
	}
	seen := make(map[ipvs.Key]bool, len(listed))
	for _, s := range listed {
		if k, _, err := fromService(s); err == nil {
			seen[k] = true
		}
	}
	if known == nil {
		again, err := t.vs.GetServices()
		for _, s := range again {
			if k, _, err := fromService(s); err == nil && !seen[k] {
				listed = append(listed, s)
			}
		}
		return listed, err //nolint:wrapcheck // the caller wraps it
	}
	for k := range known {
		if seen[k] {
			continue
		}
		asked := service(k, ipvs.Config{})
		switch s, err := t.vs.GetService(&asked); {
		case err == nil:
			listed = append(listed, s)
		case !errors.Is(err, unix.ESRCH): // it is gone by now
			return nil, err //nolint:wrapcheck // the caller wraps it
		}
	}
	return listed, nil
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
	asked := service(k, ipvs.Config{})
	s, err := t.vs.GetService(&asked)
	if errors.Is(err, unix.ESRCH) {
		return v, false, nil
	}
	if err != nil {
		return v, false, err //nolint:wrapcheck // the caller wraps it with the key
	}
	_, config, err := fromService(s)
	if err != nil {
		return v, false, err
	}
	list, err := t.dumpReal(ctx, &asked)
	return ipvs.VirtualServer{Config: config, Real: list}, true, err
}

// startProc is readProc in a goroutine of its own, while the kernel lists the virtual servers: after a start, and when they
// were many the last time.
func (t *Table) startProc() <-chan map[ipvs.Key][]ipvs.RealServer {
	answer := make(chan map[ipvs.Key][]ipvs.RealServer, 1)
	if t.few {
		answer <- nil
		return answer
	}
	go func() { answer <- t.readProc() }()
	return answer
}

// readProc returns the real servers that /proc shows, nil if they are not to be had: then each virtual server is asked for,
// so that nothing is lost by not having it.
func (t *Table) readProc() map[ipvs.Key][]ipvs.RealServer {
	if t.proc == nil {
		return nil
	}
	if _, err := t.proc.Seek(0, io.SeekStart); err != nil {
		return nil
	}
	known, err := parseProc(t.proc)
	if err != nil {
		return nil
	}
	return known
}

func (t *Table) dumpReal(ctx context.Context, s *libipvs.Service) ([]ipvs.RealServer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dests, err := t.vs.GetDestinations(s)
	if err != nil || len(dests) == 0 {
		return nil, err //nolint:wrapcheck // the caller wraps it with the key
	}
	list := make([]ipvs.RealServer, 0, len(dests))
	for _, d := range dests {
		r, err := fromDestination(d)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b ipvs.RealServer) int { return a.Compare(b.Dest) })
	// An answer of several messages can repeat an entry when someone adds another one in between.
	return slices.CompactFunc(list, func(a, b ipvs.RealServer) bool { return a.Dest == b.Dest }), nil
}

// Conns implements ipvs.Table.
func (t *Table) Conns(ctx context.Context, k ipvs.Key) (map[ipvs.Dest]ipvs.Conns, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connections of %s: %w", k, err)
	}
	if err := (ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}).Validate(); err != nil {
		return nil, fmt.Errorf("connections of %s: %w", k, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := service(k, ipvs.Config{})
	dests, err := t.vs.GetDestinations(&s)
	if err != nil {
		return nil, fmt.Errorf("connections of %s: %w", k, err)
	}
	// The kernel lists the real servers of an absent virtual server as none at all.
	if len(dests) == 0 && !t.vs.IsServicePresent(&s) {
		return nil, nil
	}
	conns := make(map[ipvs.Dest]ipvs.Conns, len(dests))
	for _, d := range dests {
		a, err := addrOf(d.Address, d.AddressFamily)
		if err != nil {
			return nil, fmt.Errorf("connections of %s: %w", k, err)
		}
		conns[ipvs.Dest{Addr: a, Port: d.Port}] = ipvs.Conns{
			Active: d.ActiveConnections, Inactive: d.InactiveConnections,
			In: d.Stats.PacketsIn, Out: d.Stats.PacketsOut,
		}
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
