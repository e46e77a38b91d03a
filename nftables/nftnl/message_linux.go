package nftnl

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/nftables"
)

// The nft command's numbers of data types, by which it prints keys. The kernel stores them only. A concatenation is
// six bits for each, the first one highest. Source: enum datatypes in nft's datatype.h.
const (
	typeIPv4Addr    = 7
	typeIPv6Addr    = 8
	typeInetProto   = 12
	typeInetService = 13
	typeMark        = 19
)

func tableRequest(t nftables.Table) request {
	return request{
		cmd: unix.NFT_MSG_NEWTABLE, family: t.Family, flags: unix.NLM_F_CREATE,
		attrs: nlattr.AppendString(nil, unix.NFTA_TABLE_NAME, t.Name),
	}
}

func deleteTableRequest(t nftables.Table) request {
	return request{cmd: unix.NFT_MSG_DELTABLE, family: t.Family, attrs: nlattr.AppendString(nil, unix.NFTA_TABLE_NAME, t.Name)}
}

func setRequest(t nftables.Table, s nftables.Set, id uint32) request {
	b := nlattr.AppendString(nil, unix.NFTA_SET_TABLE, t.Name)
	b = nlattr.AppendString(b, unix.NFTA_SET_NAME, s.Name)
	typ, size := keyType(s.Key, t.Family)
	b = nlattr.AppendUint32(b, unix.NFTA_SET_FLAGS, setFlags(s))
	b = nlattr.AppendUint32(b, unix.NFTA_SET_KEY_TYPE, typ)
	b = nlattr.AppendUint32(b, unix.NFTA_SET_KEY_LEN, size)
	if s.Value != 0 {
		typ, size := keyType(s.Value, t.Family)
		b = nlattr.AppendUint32(b, unix.NFTA_SET_DATA_TYPE, typ)
		b = nlattr.AppendUint32(b, unix.NFTA_SET_DATA_LEN, size)
	}
	if s.Learned > 0 {
		b = nlattr.Append(b, unix.NFTA_SET_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(s.Learned.Milliseconds()))...) //nolint:gosec // positive
	}
	b = nlattr.AppendUint32(b, unix.NFTA_SET_ID, id)
	return request{cmd: unix.NFT_MSG_NEWSET, family: t.Family, flags: unix.NLM_F_CREATE, attrs: b}
}

// setFlags returns the kernel's flags of a set.
func setFlags(s nftables.Set) (flags uint32) {
	if s.Value != 0 {
		flags |= unix.NFT_SET_MAP
	}
	if s.Learned > 0 {
		flags |= unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	}
	return flags
}

// keyType returns nft's number for a type of key or value, and the length.
func keyType(k nftables.KeyType, f nftables.Family) (typ, size uint32) {
	addr, length := uint32(typeIPv4Addr), uint32(4)
	if f == nftables.IPv6 {
		addr, length = typeIPv6Addr, 16
	}
	switch k {
	case nftables.PacketMark:
		return typeMark, 4
	case nftables.Addr:
		return addr, length
	case nftables.AddrPort:
		return addr<<6 | typeInetService, length + 4
	case nftables.AddrPorts:
		return addr<<18 | typeInetService<<12 | addr<<6 | typeInetService, 2 * (length + 4)
	case nftables.AddrProtoPort:
	}
	return addr<<12 | typeInetProto<<6 | typeInetService, length + 8
}

func chainRequest(t nftables.Table, c nftables.Chain) request {
	b := nlattr.AppendString(nil, unix.NFTA_CHAIN_TABLE, t.Name)
	b = nlattr.AppendString(b, unix.NFTA_CHAIN_NAME, c.Name)
	b, hook := nlattr.Open(b, unix.NFTA_CHAIN_HOOK)
	b = nlattr.AppendUint32(b, unix.NFTA_HOOK_HOOKNUM, uint32(c.Hook))
	b = nlattr.AppendUint32(b, unix.NFTA_HOOK_PRIORITY, uint32(c.Priority)) //nolint:gosec // two's complement on the wire
	b = nlattr.Close(b, hook)
	b = nlattr.AppendString(b, unix.NFTA_CHAIN_TYPE, c.Type())
	return request{cmd: unix.NFT_MSG_NEWCHAIN, family: t.Family, flags: unix.NLM_F_CREATE, attrs: b}
}

func deleteChainRequest(t nftables.Table, chain string) request {
	b := nlattr.AppendString(nil, unix.NFTA_CHAIN_TABLE, t.Name)
	return request{cmd: unix.NFT_MSG_DELCHAIN, family: t.Family, attrs: nlattr.AppendString(b, unix.NFTA_CHAIN_NAME, chain)}
}

// flushChainRequest deletes all rules of a chain.
func flushChainRequest(t nftables.Table, chain string) request {
	b := nlattr.AppendString(nil, unix.NFTA_RULE_TABLE, t.Name)
	return request{cmd: unix.NFT_MSG_DELRULE, family: t.Family, attrs: nlattr.AppendString(b, unix.NFTA_RULE_CHAIN, chain)}
}

func ruleRequest(t nftables.Table, chain string, r nftables.Rule) (request, error) {
	expressions, err := compile(r, t.Family)
	if err != nil {
		return request{}, err
	}
	b := nlattr.AppendString(nil, unix.NFTA_RULE_TABLE, t.Name)
	b = nlattr.AppendString(b, unix.NFTA_RULE_CHAIN, chain)
	b, list := nlattr.Open(b, unix.NFTA_RULE_EXPRESSIONS)
	b = nlattr.Close(append(b, expressions...), list)
	b = nlattr.Append(b, unix.NFTA_RULE_USERDATA, comment(r.Text(t.Family))...)
	return request{cmd: unix.NFT_MSG_NEWRULE, family: t.Family, flags: unix.NLM_F_CREATE | unix.NLM_F_APPEND, attrs: b}, nil
}

// comment is user data as the nft command writes a rule's comment: type, length and text with a final zero. The kernel
// takes at most 256 bytes (NFT_USERDATA_MAXLEN).
func comment(text string) []byte {
	const most = 256 - 3
	text = text[:min(len(text), most)]
	return append(append([]byte{0, byte(len(text) + 1)}, text...), 0)
}

// parseComment is the inverse of comment; what is not one gives "".
func parseComment(b []byte) string {
	if len(b) < 3 || b[0] != 0 || int(b[1]) != len(b)-2 || b[len(b)-1] != 0 {
		return ""
	}
	return string(b[2 : len(b)-1])
}

func elementRequest(o nftables.Op) request {
	if o.Delete {
		return request{cmd: unix.NFT_MSG_DELSETELEM, family: o.Set.Family, attrs: elementAttrs(o.Set, o.Key, 0)}
	}
	return request{cmd: unix.NFT_MSG_NEWSETELEM, family: o.Set.Family, flags: unix.NLM_F_CREATE, attrs: elementAttrs(o.Set, o.Key, o.Mark)}
}

// holdsRequest asks for one element.
func holdsRequest(set nftables.SetID, k nftables.Key) request {
	return request{cmd: unix.NFT_MSG_GETSETELEM, family: set.Family, attrs: elementAttrs(set, k, 0)}
}

// elementAttrs names an element, and the mark that a map gives it unless that is zero.
func elementAttrs(set nftables.SetID, k nftables.Key, mark uint32) []byte {
	b := nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, set.Table)
	b = nlattr.AppendString(b, unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	b, list := nlattr.Open(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	b, element := nlattr.Open(b, unix.NFTA_LIST_ELEM)
	b = appendData(b, unix.NFTA_SET_ELEM_KEY, keyBytes(k))
	if mark != 0 {
		b = appendData(b, unix.NFTA_SET_ELEM_DATA, binary.NativeEndian.AppendUint32(nil, mark))
	}
	return nlattr.Close(nlattr.Close(b, element), list)
}

// keyBytes returns a key as the kernel compares it: each part from a multiple of four on.
func keyBytes(k nftables.Key) []byte {
	switch k.Type() {
	case nftables.PacketMark:
		return binary.NativeEndian.AppendUint32(nil, k.Mark)
	case nftables.Addr:
		return k.Addr.AsSlice()
	case nftables.AddrPort, nftables.AddrPorts:
	case nftables.AddrProtoPort:
	}
	return append(k.Addr.AsSlice(), k.Proto, 0, 0, 0, byte(k.Port>>8), byte(k.Port), 0, 0)
}

// parseKey is the inverse of keyBytes for a set of the type.
func parseKey(b []byte, typ nftables.KeyType) (nftables.Key, error) {
	lone, isLone := netip.AddrFromSlice(b)
	addr, ok := netip.AddrFromSlice(b[:max(0, len(b)-8)])
	switch {
	case typ == nftables.PacketMark && len(b) == 4:
		return nftables.Key{Mark: binary.NativeEndian.Uint32(b)}, nil
	case typ == nftables.Addr && isLone:
		return nftables.Key{Addr: lone}, nil
	case typ == nftables.AddrProtoPort && ok:
		rest := b[len(b)-8:]
		return nftables.Key{Addr: addr, Proto: rest[0], Port: binary.BigEndian.Uint16(rest[4:])}, nil
	}
	return nftables.Key{}, fmt.Errorf("a key of %d bytes", len(b))
}

// parseElements calls each with the elements of one message of a listing.
func parseElements(attrs []byte, typ nftables.KeyType, each func(k nftables.Key, mark uint32)) error {
	return nlattr.Each(attrs, func(t uint16, list []byte) error {
		if t != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return nlattr.Each(list, func(_ uint16, element []byte) error {
			var k nftables.Key
			var mark uint32
			err := nlattr.Each(element, func(t uint16, v []byte) (err error) {
				switch t {
				case unix.NFTA_SET_ELEM_KEY:
					k, err = parseKey(parseData(v), typ)
				case unix.NFTA_SET_ELEM_DATA:
					if d := parseData(v); len(d) == 4 {
						mark = binary.NativeEndian.Uint32(d)
					}
				}
				return err
			})
			if err == nil {
				each(k, mark)
			}
			return err
		})
	})
}

// parseData returns the value that nf_tables has nested.
func parseData(b []byte) (value []byte) {
	_ = nlattr.Each(b, func(t uint16, v []byte) error {
		if t == unix.NFTA_DATA_VALUE {
			value = v
		}
		return nil
	}) // what is cut short has no value, which the caller finds out
	return value
}
