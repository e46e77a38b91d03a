package testbed

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is one network namespace of a bed: a node, a pod or an outside client.
type Host struct {
	Name         string     // such as n1, a1 or out; what echo servers call themselves
	Addr4, Addr6 netip.Addr // the address on eth0: a node's InternalIP, a pod's IP
	NetnsName    string     // for `ip netns exec`
	// Gateway4 and Gateway6 are a node's addresses on its pod bridge, which its pods see as the peer of masqueraded
	// connections. Invalid on other hosts.
	Gateway4, Gateway6 netip.Addr
	// Node is the node a pod runs on, nil for nodes and outside clients.
	Node *Host

	bed   *Bed
	index int // of a node: from 0
	pods  int // of a node: how many it ever had; addresses are not used twice
	ns    netns.NsHandle
	nl    *netlink.Handle
}

// String returns the name.
func (h *Host) String() string { return h.Name }

// Addr returns the host's address of the family of like.
func (h *Host) Addr(like netip.Addr) netip.Addr {
	if like.Is4() {
		return h.Addr4
	}
	return h.Addr6
}

// Do runs fn in the host's network namespace, on a thread of its own, and returns its error. Sockets, processes and
// netlink handles made by fn stay in the namespace; goroutines started by fn do not. fn must not end its goroutine,
// so no t.Fatal in it.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter namespace of %s: %w", h.Name, err)
		}
		return fn()
	})
}

// DialContext is the plain dial of package net in the host's namespace; address must be numeric.
func (h *Host) DialContext(ctx context.Context, network, address string) (conn net.Conn, err error) {
	derr := h.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, derr
}

// HTTP returns a client that makes a new connection from the host's namespace for every request. Addresses must be
// numeric.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.DialContext, DisableKeepAlives: true}}
}

// Links returns the names of the host's network interfaces.
func (h *Host) Links() ([]string, error) {
	links, err := h.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("links of %s: %w", h.Name, err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names, nil
}

// newHost makes a namespace with its loopback up and no other link.
func (b *Bed) newHost(name string, settings ...sysctl) (*Host, error) {
	h := &Host{Name: name, NetnsName: b.prefix + "-" + name, bed: b, nl: &netlink.Handle{}}
	var err error
	if h.ns, err = newNamespace(h.NetnsName); err != nil {
		return nil, err
	}
	b.hosts = append(b.hosts, h) // from here on Close finds it
	if h.nl, err = netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", name, err)
	}
	if err := h.Do(func() error { return setSysctls(append(hostSysctls(), settings...)) }); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	return h, h.up("lo")
}

// remove deletes the namespace's name and lets go of it; the kernel then takes the links down in its own time.
func (h *Host) remove() error {
	h.nl.Close()
	h.ns.Close()
	if err := netns.DeleteNamed(h.NetnsName); err != nil {
		return fmt.Errorf("delete namespace %s: %w", h.NetnsName, err)
	}
	return nil
}
