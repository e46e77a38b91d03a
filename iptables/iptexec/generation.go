package iptexec

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// generation returns the number of the last change of nf_tables rules in the calling thread's network namespace,
// whoever made it. Source: nf_tables_getgen in net/netfilter/nf_tables_api.c.
func generation() (number uint32, known bool) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil || len(messages) == 0 || len(messages[0]) < nl.SizeofNfgenmsg {
		return 0, false // no nf_tables in the kernel: every check looks
	}
	attrs, err := nl.ParseRouteAttr(messages[0][nl.SizeofNfgenmsg:])
	if err != nil {
		return 0, false
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.NFTA_GEN_ID && len(a.Value) == 4 {
			return binary.BigEndian.Uint32(a.Value), true
		}
	}
	return 0, false
}
