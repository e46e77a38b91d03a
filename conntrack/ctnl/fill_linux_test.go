package ctnl

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
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
		batch = append(batch, creation(client, netip.MustParseAddrPort("198.51.100.1:53"))...)
		if len(batch) > 32<<10 || i == n-1 {
			if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}

// creation is a message that enters a flow.
func creation(client, dst netip.AddrPort) []byte {
	direction := func(kind uint16, from, to netip.AddrPort) []byte {
		ip := appendAttr(appendAttr(nil, nl.CTA_IP_V4_SRC, from.Addr().AsSlice()), nl.CTA_IP_V4_DST, to.Addr().AsSlice())
		proto := appendAttr(nil, nl.CTA_PROTO_NUM, []byte{protoUDP})
		proto = appendAttr(proto, nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, from.Port()))
		proto = appendAttr(proto, nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, to.Port()))
		return appendAttr(nil, kind|nested, append(appendAttr(nil, nl.CTA_TUPLE_IP|nested, ip), appendAttr(nil, nl.CTA_TUPLE_PROTO|nested, proto)...))
	}
	attrs := append(direction(nl.CTA_TUPLE_ORIG, client, dst), direction(nl.CTA_TUPLE_REPLY, dst, client)...)
	attrs = appendAttr(attrs, nl.CTA_TIMEOUT, binary.BigEndian.AppendUint32(nil, 600))
	return request(nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE, unix.AF_INET, attrs).Serialize()
}
