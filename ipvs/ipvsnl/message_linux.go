package ipvsnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/ipvs"
)

// Commands and attributes of the generic netlink family IPVS, as far as requests use them. Source: linux/ip_vs.h.
const (
	cmdNewService = 1 // IPVS_CMD_NEW_SERVICE
	cmdSetService = 2 // IPVS_CMD_SET_SERVICE
	cmdDelService = 3 // IPVS_CMD_DEL_SERVICE
	cmdNewDest    = 5 // IPVS_CMD_NEW_DEST
	cmdSetDest    = 6 // IPVS_CMD_SET_DEST
	cmdDelDest    = 7 // IPVS_CMD_DEL_DEST

	attrService = 1 // IPVS_CMD_ATTR_SERVICE
	attrDest    = 2 // IPVS_CMD_ATTR_DEST

	svcFamily    = 1 // IPVS_SVC_ATTR_AF
	svcProtocol  = 2
	svcAddress   = 3
	svcPort      = 4 // network byte order
	svcMark      = 5
	svcScheduler = 6
	svcFlags     = 7 // struct ip_vs_flags: the bits, and which of them count
	svcTimeout   = 8 // seconds
	svcNetmask   = 9

	destAddress = 1 // IPVS_DEST_ATTR_ADDR
	destPort    = 2 // network byte order
	destMethod  = 3
	destWeight  = 4
	destUpper   = 5
	destLower   = 6

	genlVersion = 1 // IPVS_GENL_VERSION
	methodMasq  = 0 // IP_VS_CONN_F_MASQ
)

// command returns the request that carries an operation out where the kernel's state is as expected.
func command(v ipvs.Verb) (cmd uint8, ok bool) {
	switch v {
	case ipvs.AddVirtual:
		return cmdNewService, true
	case ipvs.EditVirtual:
		return cmdSetService, true
	case ipvs.DeleteVirtual:
		return cmdDelService, true
	case ipvs.AddReal:
		return cmdNewDest, true
	case ipvs.EditReal:
		return cmdSetDest, true
	case ipvs.DeleteReal:
		return cmdDelDest, true
	default: // not of IPVS
		return 0, false
	}
}

// appendRequest appends one request to b. Only what the command needs is sent: of the virtual server of a real
// server the kernel looks at nothing but the key.
func appendRequest(b []byte, family uint16, seq uint32, op ipvs.Op) []byte {
	cmd, _ := command(op.Verb)
	start := len(b)
	b = appendHeader(b, family, unix.NLM_F_REQUEST, seq, cmd)
	b = appendService(b, op, cmd == cmdNewService || cmd == cmdSetService)
	switch cmd {
	case cmdNewDest, cmdSetDest, cmdDelDest:
		b = appendDest(b, op.Real, cmd != cmdDelDest)
	}
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start)) //nolint:gosec // some hundred bytes
	return b
}

// appendHeader appends the head of a request, whose length is yet to be set.
func appendHeader(b []byte, family, flags uint16, seq uint32, cmd uint8) []byte {
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, family)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel knows our port
	return append(b, cmd, genlVersion, 0, 0)
}

func appendService(b []byte, op ipvs.Op, whole bool) []byte {
	b, start := nlattr.Open(b, attrService)
	s := service(op.Key, op.Config)
	b = append16(b, svcFamily, s.AddressFamily)
	if op.Key.Mark != 0 {
		b = append32(b, svcMark, op.Key.Mark)
	} else {
		b = append16(b, svcProtocol, s.Protocol)
		b = nlattr.Append(b, svcAddress, s.Address...)
		b = appendPort(b, svcPort, op.Key.Port)
	}
	if whole {
		b = nlattr.AppendString(b, svcScheduler, op.Config.Scheduler)
		b = nlattr.Append(b, svcFlags, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, s.Flags), ^uint32(0))...)
		b = append32(b, svcTimeout, s.Timeout)
		b = append32(b, svcNetmask, s.Netmask)
	}
	return nlattr.Close(b, start)
}

func appendDest(b []byte, r ipvs.RealServer, whole bool) []byte {
	b, start := nlattr.Open(b, attrDest)
	b = nlattr.Append(b, destAddress, r.Addr.AsSlice()...)
	b = appendPort(b, destPort, r.Port)
	if whole {
		b = append32(b, destMethod, methodMasq)
		b = append32(b, destWeight, uint32(r.Weight)) //nolint:gosec // Validate bounds it
		b = append32(b, destUpper, 0)
		b = append32(b, destLower, 0)
	}
	return nlattr.Close(b, start)
}

// append16 and append32 append numbers in the machine's byte order, as IPVS wants all but ports.
func append16(b []byte, kind, v uint16) []byte {
	return nlattr.Append(b, kind, binary.NativeEndian.AppendUint16(nil, v)...)
}

func append32(b []byte, kind uint16, v uint32) []byte {
	return nlattr.Append(b, kind, binary.NativeEndian.AppendUint32(nil, v)...)
}

func appendPort(b []byte, kind, port uint16) []byte {
	return nlattr.Append(b, kind, byte(port>>8), byte(port))
}
