package ipsetnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// errShort is the answer to a message that ends in the middle of an attribute.
var errShort = errors.New("truncated attribute")

const attrHeader = 4

func align4(n int) int { return (n + 3) &^ 3 }

// appendAttr appends one attribute, padded to the next multiple of four.
func appendAttr(b []byte, typ uint16, value ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, align4(len(value))-len(value))...)
}

func appendString(b []byte, typ uint16, s string) []byte {
	return appendAttr(b, typ, append([]byte(s), 0)...)
}

func appendNet16(b []byte, typ, v uint16) []byte {
	return appendAttr(b, typ|flagNetOrder, byte(v>>8), byte(v))
}

func appendNet32(b []byte, typ uint16, v uint32) []byte {
	return appendAttr(b, typ|flagNetOrder, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// appendHost32 appends a number in host order, as line numbers are.
func appendHost32(b []byte, typ uint16, v uint32) []byte {
	return appendAttr(b, typ, binary.NativeEndian.AppendUint32(nil, v)...)
}

// openNest appends the header of a nested attribute, whose content follows until closeNest.
func openNest(b []byte, typ uint16) ([]byte, int) {
	return appendAttr(b, typ|flagNested), len(b)
}

// closeNest ends the nested attribute that started at the given place.
func closeNest(b []byte, start int) []byte {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	inner := uint16(attrIPv4)
	if a.Is6() {
		inner = attrIPv6
	}
	b, start := openNest(b, typ)
	b = appendAttr(b, inner|flagNetOrder, a.AsSlice()...)
	return closeNest(b, start)
}

// eachAttr calls f for every attribute, with its type free of flags.
func eachAttr(b []byte, f func(typ uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < attrHeader {
			return errShort
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeader || n > len(b) {
			return errShort
		}
		typ := binary.NativeEndian.Uint16(b[2:]) & typeMask
		if err := f(typ, b[attrHeader:n]); err != nil {
			return err
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
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
	err = eachAttr(v, func(typ uint16, value []byte) error {
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
