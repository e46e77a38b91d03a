package ctnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/lb"
)

// nfgenSize is the length of struct nfgenmsg in linux/netfilter/nfnetlink.h.
const nfgenSize = 4

// Table is the conntrack.Table of the kernel, in the network namespace of the calling thread. It holds no socket: a
// cleanup is rare, and each opens its own.
type Table struct{}

var _ conntrack.Table = Table{}

// Expire implements conntrack.Table. The table has no index by destination: the kernel walks over all of it, but
// sends only what passes the filter.
func (Table) Expire(ctx context.Context, c conntrack.Cleanup) (int, error) {
	deleted := 0
	var errs []error
	for _, ipv6 := range []bool{false, true} {
		of := c.OfFamily(ipv6)
		if of.Empty() {
			continue
		}
		n, err := expire(ctx, of, ipv6)
		deleted += n
		errs = append(errs, err)
	}
	return deleted, errors.Join(errs...)
}

// expire looks for stale entries of one family, and deletes what it found also if the listing broke off.
func expire(ctx context.Context, c conntrack.Cleanup, ipv6 bool) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("conntrack: %w", err)
	}
	family := uint8(unix.AF_INET)
	if ipv6 {
		family = unix.AF_INET6
	}
	stale, err := list(ctx, c, family)
	if err != nil {
		err = fmt.Errorf("conntrack: list entries: %w", err)
	}
	errs := []error{err}
	deleted := 0
	for _, e := range stale {
		if err := ctx.Err(); err != nil {
			return deleted, errors.Join(append(errs, fmt.Errorf("conntrack: %w", err))...)
		}
		switch err := remove(family, e); {
		case err == nil:
			deleted++
		case !errors.Is(err, unix.ENOENT): // one that has ended by itself is as good
			errs = append(errs, fmt.Errorf("conntrack: delete %s entry %s to %s: %w", e.flow.Proto, e.flow.Client, e.flow.Dst, err))
		}
	}
	return deleted, errors.Join(errs...)
}

// filtered is the number of frontends and servers up to which each is filtered for in a walk of its own. A walk over
// 200,000 entries of which none passes took 0.1 s on the machine where one that all pass took 1.5 s.
const filtered = 16

// list returns the stale entries. The rest of the table passes by and is not kept.
func list(ctx context.Context, c conntrack.Cleanup, family uint8) ([]entry, error) {
	var stale []entry
	var errs []error
	for _, w := range walks(c) {
		found, err := walk(w, family)
		stale = append(stale, found...)
		errs = append(errs, err, ctx.Err())
	}
	return stale, errors.Join(errs...)
}

// walks returns what to walk for: each frontend and server by itself if they are few, and else each protocol.
func walks(c conntrack.Cleanup) []wanted {
	var out []wanted
	if c.Len() <= filtered {
		for dst, servers := range c.Frontends {
			out = append(out, wanted{c: conntrack.Cleanup{Frontends: conntrack.Frontends{dst: servers}}, proto: lb.UDP, at: dst})
		}
		for src := range c.Added {
			out = append(out, wanted{c: conntrack.Cleanup{Added: map[netip.AddrPort]struct{}{src: {}}}, proto: lb.UDP, at: src, source: true})
		}
		for f := range c.Opened {
			out = append(out, wanted{c: conntrack.Cleanup{Opened: map[conntrack.Frontend]struct{}{f: {}}}, proto: f.Proto, at: f.At, unanswered: true})
		}
		return out
	}
	if len(c.Frontends)+len(c.Added) > 0 {
		out = append(out, wanted{c: c, proto: lb.UDP})
	}
	for _, proto := range []lb.Proto{lb.TCP, lb.SCTP} {
		for f := range c.Opened {
			if f.Proto == proto {
				out = append(out, wanted{c: c, proto: proto, unanswered: true})
				break
			}
		}
	}
	return out
}

// walk lists what is wanted and returns those entries that are stale.
func walk(w wanted, family uint8) ([]entry, error) {
	var stale []entry
	req := request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, family, filter(w))
	err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		if len(msg) < nfgenSize {
			return true
		}
		if e, ok := parseEntry(msg[nfgenSize:]); ok && w.c.Stale(e.flow) {
			stale = append(stale, e)
		}
		return true
	})
	return stale, err //nolint:wrapcheck // the caller wraps it
}

// remove deletes one entry, and not another one that has taken its place: the kernel compares the identifier too.
func remove(family uint8, e entry) error {
	_, err := request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, family, e.name).Execute(unix.NETLINK_NETFILTER, 0)
	return err //nolint:wrapcheck // the caller wraps it
}

// request returns a message to the connection tracking subsystem.
func request(cmd, flags int, family uint8, attrs []byte) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|cmd, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	req.AddRawData(attrs)
	return req
}
