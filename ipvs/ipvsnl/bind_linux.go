package ipvsnl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

const (
	// RouteProtocol marks our routes in the kernel's table, where 0 to 4 are its own and the numbers up to 255 are
	// for user space. Source: rtm_protocol in linux/rtnetlink.h; 130 is not assigned there nor in iproute2.
	RouteProtocol = 130
	// routeMetric is what IPv6 uses by default (IP6_RT_PRIO_USER); any but 0 keeps us off the kernel's own routes.
	routeMetric = 1024
)

// ErrNotDummy says that the device for bound prefixes is of another kind, which we neither use nor delete.
var ErrNotDummy = errors.New("not a dummy device")

var families = [...]int{netlink.FAMILY_V4, netlink.FAMILY_V6} //nolint:gochecknoglobals // a constant table

// link is the index of our device as one Apply knows it; 0 before it was looked up. It is not kept any longer,
// since anybody may delete the device and create it again.
type link struct{ index int }

// findDevice returns our device, or nil if there is none.
func (t *Table) findDevice() (netlink.Link, error) {
	device, err := t.routes.LinkByName(t.device)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", t.device, err)
	}
	if device.Type() != "dummy" {
		return nil, fmt.Errorf("device %s of type %s: %w", t.device, device.Type(), ErrNotDummy)
	}
	return device, nil
}

// ensureDevice creates our device and sets it up, as needed: on a device that is down, no route can be
// added, and IPv6 has lost those that were there (IPv4 keeps them and delivers to them).
func (t *Table) ensureDevice(l *link) error {
	if l.index != 0 {
		return nil
	}
	device, err := t.findDevice()
	if err != nil {
		return err
	}
	if device == nil {
		if device, err = t.createDevice(); err != nil {
			return err
		}
	}
	if device.Attrs().Flags&net.FlagUp == 0 {
		if err := t.routes.LinkSetUp(device); err != nil {
			return fmt.Errorf("set device %s up: %w", t.device, err)
		}
	}
	l.index = device.Attrs().Index
	return nil
}

func (t *Table) createDevice() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = t.device
	// Another program may be quicker; its device serves as well.
	if err := t.routes.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("create device %s: %w", t.device, err)
	}
	device, err := t.findDevice()
	if err != nil {
		return nil, err
	}
	if device == nil {
		return nil, fmt.Errorf("create device %s: %w", t.device, unix.ENODEV)
	}
	// Nobody talks to this device: no link-local address, no router solicitations. Without IPv6 there is nothing
	// to turn off, hence no error.
	_ = t.routes.LinkSetIP6AddrGenMode(device, nl.IN6_ADDR_GEN_MODE_NONE)
	return device, nil
}

// DeleteDevice deletes our device, with all that is bound to it. An absent device is a success, one of another type
// fails with ErrNotDummy.
func (t *Table) DeleteDevice(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete device %s: %w", t.device, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	device, err := t.findDevice()
	if err != nil || device == nil {
		return err
	}
	if err := t.routes.LinkDel(device); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %s: %w", t.device, err)
	}
	return nil
}

// localRoute is the route that makes a prefix local.
func localRoute(p netip.Prefix, source netip.Addr) netlink.Route {
	r := netlink.Route{
		Dst:      &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Table:    unix.RT_TABLE_LOCAL,
		Type:     unix.RTN_LOCAL,
		Scope:    netlink.SCOPE_HOST,
		Protocol: RouteProtocol,
		Priority: routeMetric,
	}
	if source.IsValid() {
		r.Src = net.IP(source.AsSlice())
	}
	return r
}

// fromRoute is the inverse of localRoute; ok is false for a route that is not one of ours.
func fromRoute(r *netlink.Route) (p netip.Prefix, source netip.Addr, ok bool) {
	if r.Table != unix.RT_TABLE_LOCAL || r.Type != unix.RTN_LOCAL || r.Protocol != RouteProtocol || r.Dst == nil {
		return netip.Prefix{}, netip.Addr{}, false
	}
	dst, ok := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	if r.Src != nil {
		source, _ = netip.AddrFromSlice(r.Src)
		source = source.Unmap()
	}
	p = netip.PrefixFrom(dst.Unmap(), ones)
	return p, source, ok && p.IsValid()
}

// bind replaces: with a changed source there is no moment without the route.
func (t *Table) bind(op ipvs.Op, l *link) error {
	r := localRoute(op.Prefix, op.Source)
	return t.replaceRoute(&r, l)
}

// replaceRoute puts a route on our device.
func (t *Table) replaceRoute(r *netlink.Route, l *link) error {
	var err error
	for range 2 {
		if err = t.ensureDevice(l); err != nil {
			return err
		}
		r.LinkIndex = l.index
		err = t.routes.RouteReplace(r)
		if !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENETDOWN) {
			break
		}
		*l = link{} // deleted or set down while we were at it
	}
	return err //nolint:wrapcheck // the caller wraps it with the operation
}

func (t *Table) unbind(op ipvs.Op, l *link) error {
	if l.index == 0 {
		device, err := t.findDevice()
		if err != nil || device == nil {
			return err
		}
		l.index = device.Attrs().Index
	}
	if t.unbinding != nil {
		t.unbinding[op.Prefix] = true
	}
	r := localRoute(op.Prefix, netip.Addr{})
	r.LinkIndex = l.index
	err := t.routes.RouteDel(&r)
	if err != nil {
		delete(t.unbinding, op.Prefix)
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err //nolint:wrapcheck // the caller wraps it with the operation
}
