package testbed

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// RouteVia makes h send packets for the prefix by way of another host on the same link, instead of the way it had.
func (h *Host) RouteVia(prefix netip.Prefix, via *Host) error {
	return h.routeTo(prefix, via.Addr(prefix.Addr()))
}

// Unroute removes h's own route for the prefix.
func (h *Host) Unroute(prefix netip.Prefix) error {
	if err := h.nl.RouteDel(&netlink.Route{Dst: ipNet(prefix.Masked())}); err != nil {
		return fmt.Errorf("delete route %s in %s: %w", prefix, h.Name, err)
	}
	return nil
}

func (h *Host) routeTo(prefix netip.Prefix, gateway netip.Addr) error {
	err := h.nl.RouteReplace(&netlink.Route{Dst: ipNet(prefix.Masked()), Gw: gateway.AsSlice()})
	if err != nil {
		return fmt.Errorf("route %s via %s in %s: %w", prefix, gateway, h.Name, err)
	}
	return nil
}

// defaultVia sends all else to the gateways, one of each family.
func (h *Host) defaultVia(gateway4, gateway6 netip.Addr) error {
	if err := h.routeTo(netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway4); err != nil {
		return err
	}
	return h.routeTo(netip.PrefixFrom(netip.IPv6Unspecified(), 0), gateway6)
}
