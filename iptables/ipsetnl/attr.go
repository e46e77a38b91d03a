package ipsetnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/kube-hop/kube-hop/internal/nlattr"
)

func appendNet16(b []byte, typ, v uint16) []byte {
	return nlattr.Append(b, typ|flagNetOrder, byte(v>>8), byte(v))
}

func appendNet32(b []byte, typ uint16, v uint32) []byte {
	return nlattr.Append(b, typ|flagNetOrder, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// appendHost32 appends a number in host order, as line numbers are.
func appendHost32(b []byte, typ uint16, v uint32) []byte {
	return nlattr.Append(b, typ, binary.NativeEndian.AppendUint32(nil, v)...)
}

func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	inner := uint16(attrIPv4)
	if a.Is6() {
		inner = attrIPv6
	}
	b, start := nlattr.Open(b, typ)
	b = nlattr.Append(b, inner|flagNetOrder, a.AsSlice()...)
	return nlattr.Close(b, start)
}

func parseU8(v []byte) (uint8, error) {
	if len(v) != 1 {
		return 0, fmt.Errorf("one byte expected, got %d", len(v))
	}
	return v[0], nil
}

func parseNet16(v []byte) (uint16, error) {
	if len(v) != 2 {
		return 0, fmt.Errorf("two bytes expected, got %d", len(v))
	}
	return binary.BigEndian.Uint16(v), nil
}

func parseNet32(v []byte) (uint32, error) {
	if len(v) != 4 {
		return 0, fmt.Errorf("four bytes expected, got %d", len(v))
	}
	return binary.BigEndian.Uint32(v), nil
}

func parseString(v []byte) (string, error) {
	if len(v) == 0 || v[len(v)-1] != 0 {
		return "", errors.New("string without final zero")
	}
	return string(v[:len(v)-1]), nil
}

func parseAddr(v []byte) (addr netip.Addr, err error) {
	err = nlattr.Each(v, func(typ uint16, value []byte) error {
		a, ok := netip.AddrFromSlice(value)
		if !ok || a.Is4() != (typ == attrIPv4) || a.Is6() != (typ == attrIPv6) {
			return fmt.Errorf("address of type %d with %d bytes", typ, len(value))
		}
		addr = a
		return nil
	})
	if err == nil && !addr.IsValid() {
		err = errors.New("no address")
	}
	return addr, err
}
