package ipvsnl

import (
	"context"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// WatchBound calls changed when somebody else may have taken a bound prefix away: after a route of ours was deleted,
// or our device was deleted or set down, and once when it has begun to listen. Deleting a device deletes its IPv4
// routes without a message for each. It returns when ctx ends; changed is not called any more then.
func (t *Table) WatchBound(ctx context.Context, changed func()) {
	t.setUnbinding(map[netip.Prefix]bool{})
	defer t.setUnbinding(nil)
	rewatch(ctx, func() bool { return t.watchBoundOnce(ctx, changed) })
}

func (t *Table) setUnbinding(m map[netip.Prefix]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unbinding = m
}

// watchBoundOnce listens until ctx ends or a socket fails, and reports whether it ever listened.
func (t *Table) watchBoundOnce(ctx context.Context, changed func()) bool {
	routes, links, done := make(chan netlink.RouteUpdate, 64), make(chan netlink.LinkUpdate, 16), make(chan struct{})
	var routeOptions netlink.RouteSubscribeOptions
	var linkOptions netlink.LinkSubscribeOptions
	if t.ns.IsOpen() {
		routeOptions.Namespace, linkOptions.Namespace = &t.ns, &t.ns
	}
	if err := netlink.RouteSubscribeWithOptions(routes, done, routeOptions); err != nil {
		close(done)
		return false
	}
	if err := netlink.LinkSubscribeWithOptions(links, done, linkOptions); err != nil {
		close(links)
		defer finish(done, routes, links)
		return false
	}
	defer finish(done, routes, links)
	changed()
	for {
		select {
		case <-ctx.Done():
			return true
		case u, ok := <-routes:
			if !ok {
				return true
			}
			if u.Type == unix.RTM_DELROUTE && t.deletedByOthers(&u.Route) && ctx.Err() == nil {
				changed()
			}
		case u, ok := <-links:
			if !ok {
				return true
			}
			gone := u.Header.Type == unix.RTM_DELLINK || u.IfInfomsg.Flags&unix.IFF_UP == 0
			if gone && u.Attrs().Name == t.device && ctx.Err() == nil {
				changed()
			}
		}
	}
}

// finish ends subscriptions: the library closes a channel when its goroutine ends, after done was closed.
func finish(done chan struct{}, routes chan netlink.RouteUpdate, links chan netlink.LinkUpdate) {
	close(done)
	for range routes {
	}
	for range links {
	}
}

// deletedByOthers reports whether the deleted route was a bound prefix that we did not unbind ourselves.
func (t *Table) deletedByOthers(r *netlink.Route) bool {
	if r.Protocol != RouteProtocol {
		return false
	}
	p, _, ok := fromRoute(r)
	if !ok {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	ours := t.unbinding[p]
	delete(t.unbinding, p)
	return !ours
}
