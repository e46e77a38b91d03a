package testbed

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// uplink is the interface by which nodes and outside clients are on the wire, and pods on their bridge.
const uplink = "eth0"

func (h *Host) up(name string) error {
	link, err := h.nl.LinkByName(name)
	if err == nil {
		err = h.nl.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up in %s: %w", name, h.Name, err)
	}
	return nil
}

// addBridge makes a bridge that carries the addresses.
func (h *Host) addBridge(name string, prefixes ...netip.Prefix) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	// Without a fixed address a bridge takes the lowest one of its ports, and changes it under its neighbours' feet.
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0x62, 0x72, 0, 0, byte(h.index)}
	snooping := false // no querier here: do not let the bridge guess who wants neighbour discovery
	if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("bridge %s in %s: %w", name, h.Name, err)
	}
	if err := h.addAddresses(name, prefixes...); err != nil {
		return err
	}
	return h.up(name)
}

// addAddresses puts addresses on a link.
func (h *Host) addAddresses(name string, prefixes ...netip.Prefix) error {
	link, err := h.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s in %s: %w", name, h.Name, err)
	}
	for _, p := range prefixes {
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s on %s in %s: %w", p, name, h.Name, err)
		}
	}
	return nil
}

// plug joins h by a veth pair to a bridge of hub: eth0 with the addresses in h, a port named after h in hub.
func (h *Host) plug(hub *Host, bridge string, prefixes ...netip.Prefix) error {
	br, err := hub.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s in %s: %w", bridge, hub.Name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "port-" + h.Name
	attrs.MasterIndex = br.Attrs().Index
	port := &netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsFd(h.ns)}
	if err := hub.nl.LinkAdd(port); err != nil {
		return fmt.Errorf("veth pair %s-%s: %w", hub.Name, h.Name, err)
	}
	// As network plugins do: a pod that reaches itself by way of a Service comes back out of the port it went in by.
	if err := hub.nl.LinkSetHairpin(port, true); err != nil {
		return fmt.Errorf("hairpin of %s in %s: %w", attrs.Name, hub.Name, err)
	}
	if err := hub.up(attrs.Name); err != nil {
		return err
	}
	if err := h.addAddresses(uplink, prefixes...); err != nil {
		return err
	}
	return h.up(uplink)
}

// waitReady waits until the uplink carries packets: the kernel reports a carrier from a work queue, and binds IPv6
// routes only then.
func (h *Host) waitReady(ctx context.Context) error {
	for {
		link, err := h.nl.LinkByName(uplink)
		if err != nil {
			return fmt.Errorf("%s in %s: %w", uplink, h.Name, err)
		}
		addrs, err := h.nl.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return fmt.Errorf("addresses of %s: %w", h.Name, err)
		}
		if link.Attrs().OperState == netlink.OperUp && !anyTentative(addrs) {
			return nil
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("%s of %s has no carrier: %w", uplink, h.Name, err)
		}
	}
}

func anyTentative(addrs []netlink.Addr) bool {
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return true
		}
	}
	return false
}

// pause waits between two looks at a condition that nothing announces.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
