package ctnl

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/lb"
)

// Fill enters n UDP flows to as many destinations, many in one message: one by one it would take minutes.
func Fill(n int) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var batch []byte
	for i := range n {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)}), 1000)
		dst := netip.MustParseAddrPort("198.51.100.1:53")
		batch = append(batch, creation(conntrack.Flow{Proto: lb.UDP, Client: client, Dst: dst, Server: dst}).Serialize()...)
		if len(batch) > 32<<10 || i == n-1 {
			if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}

// Add enters a flow whose answers go back to the client.
func Add(f conntrack.Flow) error {
	req := creation(f)
	req.Flags |= unix.NLM_F_ACK
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

// Has reports whether there is an entry for a flow, by its first direction.
func Has(f conntrack.Flow) (bool, error) {
	req := creation(f)
	req.Type = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_GET
	req.Flags = unix.NLM_F_REQUEST | unix.NLM_F_ACK
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// creation is a message that enters a flow.
func creation(f conntrack.Flow) *nl.NetlinkRequest {
	family, src, dst := uint8(unix.AF_INET), uint16(nl.CTA_IP_V4_SRC), uint16(nl.CTA_IP_V4_DST)
	if f.Dst.Addr().Is6() {
		family, src, dst = unix.AF_INET6, nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
	}
	direction := func(kind uint16, from, to netip.AddrPort) []byte {
		ip := appendAttr(appendAttr(nil, src, from.Addr().AsSlice()), dst, to.Addr().AsSlice())
		ports := appendAttr(nil, nl.CTA_PROTO_NUM, []byte{byte(f.Proto)})
		ports = appendAttr(ports, nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, from.Port()))
		ports = appendAttr(ports, nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, to.Port()))
		return appendAttr(nil, kind|nested, append(appendAttr(nil, nl.CTA_TUPLE_IP|nested, ip), appendAttr(nil, nl.CTA_TUPLE_PROTO|nested, ports)...))
	}
	attrs := append(direction(nl.CTA_TUPLE_ORIG, f.Client, f.Dst), direction(nl.CTA_TUPLE_REPLY, f.Server, f.Client)...)
	attrs = appendAttr(attrs, nl.CTA_TIMEOUT, binary.BigEndian.AppendUint32(nil, 600))
	if !f.Unanswered {
		const confirmed = 1 << 3 // IPS_CONFIRMED, which every entry has and none may lose
		attrs = appendAttr(attrs, nl.CTA_STATUS, binary.BigEndian.AppendUint32(nil, confirmed|seenReply))
	}
	if f.Proto == lb.TCP {
		state := appendAttr(nil, nl.CTA_PROTOINFO_TCP_STATE, []byte{nl.TCP_CONNTRACK_ESTABLISHED})
		attrs = appendAttr(attrs, nl.CTA_PROTOINFO|nested, appendAttr(nil, nl.CTA_PROTOINFO_TCP|nested, state))
	}
	return request(nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE, family, attrs)
}
