package ipvsnl

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NodeAddresses returns the node's own addresses, sorted: those of every device but ours that can be used as a source
// (not tentative, not duplicate), without loopback and IPv6 link-local addresses. Other addresses on the loopback
// device count: nodes that announce themselves by BGP have theirs there.
//
// With them come the networks that they are in, sorted, as far as those hold more than the address itself.
func (t *Table) NodeAddresses(ctx context.Context) ([]netip.Addr, []netip.Prefix, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("node addresses: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []netlink.Addr
	skip := 0
	err := retryDump(func() error {
		device, err := t.routes.LinkByName(t.device)
		if err == nil {
			skip = device.Attrs().Index
		}
		all, err = t.routes.AddrList(nil, netlink.FAMILY_ALL)
		return err //nolint:wrapcheck // right below
	})
	if err != nil {
		return nil, nil, fmt.Errorf("node addresses: %w", err)
	}
	var addrs []netip.Addr
	var networks []netip.Prefix
	for _, a := range all {
		addr, ok := nodeAddress(a)
		if !ok || a.LinkIndex == skip {
			continue
		}
		addrs = append(addrs, addr)
		ones, _ := a.Mask.Size()
		if network, err := addr.Prefix(ones); err == nil && !network.IsSingleIP() && ones > 0 {
			networks = append(networks, network)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	slices.SortFunc(networks, netip.Prefix.Compare)
	return slices.Compact(addrs), slices.Compact(networks), nil
}

func nodeAddress(a netlink.Addr) (netip.Addr, bool) {
	if a.IPNet == nil || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0 {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(a.IP)
	addr = addr.Unmap()
	return addr, ok && !addr.IsLoopback() && !(addr.Is6() && addr.IsLinkLocalUnicast())
}

// Waits between attempts to follow address changes again.
const (
	minRewatch = 100 * time.Millisecond
	maxRewatch = 10 * time.Second
)

// WatchAddresses calls changed after each change of an address in the namespace, and once when it has begun to
// listen, so that a change right before is not missed. Where the kernel drops messages it begins again. It returns
// when ctx ends; changed is not called any more then.
func (t *Table) WatchAddresses(ctx context.Context, changed func()) {
	rewatch(ctx, func() bool { return t.watchOnce(ctx, changed) })
}

// rewatch calls watch again and again until ctx ends, with longer and longer waits while it does not succeed.
func rewatch(ctx context.Context, watch func() bool) {
	for wait := minRewatch; ctx.Err() == nil; wait = min(2*wait, maxRewatch) {
		if watch() {
			wait = minRewatch
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watchOnce listens until ctx ends or the socket fails, and reports whether it ever listened.
func (t *Table) watchOnce(ctx context.Context, changed func()) bool {
	updates, done := make(chan netlink.AddrUpdate, 16), make(chan struct{})
	var opts netlink.AddrSubscribeOptions
	if t.ns.IsOpen() {
		opts.Namespace = &t.ns
	}
	if err := netlink.AddrSubscribeWithOptions(updates, done, opts); err != nil {
		close(done)
		return false
	}
	// The library closes updates when its goroutine ends, after the socket failed or done was closed.
	defer func() {
		close(done)
		for range updates {
		}
	}()
	changed()
	for {
		select {
		case <-ctx.Done():
			return true
		case _, ok := <-updates:
			if !ok || ctx.Err() != nil {
				return true
			}
			changed()
		}
	}
}
