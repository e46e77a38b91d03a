// Package nlattr writes and reads netlink attributes: type, length and value, padded to multiples of four bytes.
// Source: struct nlattr in linux/netlink.h.
package nlattr

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// ErrShort is the answer to a message that ends in the middle of an attribute.
var ErrShort = errors.New("truncated attribute")

const (
	header   = 4
	typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// Align4 rounds up to a multiple of four.
func Align4(n int) int { return (n + 3) &^ 3 }

// Append appends one attribute.
func Append(b []byte, typ uint16, value ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(header+len(value))) //nolint:gosec // values are short
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, Align4(len(value))-len(value))...)
}

// AppendString appends a string with a final zero.
func AppendString(b []byte, typ uint16, s string) []byte {
	return Append(b, typ, append([]byte(s), 0)...)
}

// AppendUint32 appends a number in network byte order.
func AppendUint32(b []byte, typ uint16, v uint32) []byte {
	return Append(b, typ, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// Open appends the header of a nested attribute, whose content follows until [Close].
func Open(b []byte, typ uint16) ([]byte, int) {
	return Append(b, typ|unix.NLA_F_NESTED), len(b)
}

// Close ends the nested attribute that started at the given place.
func Close(b []byte, start int) []byte {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start)) //nolint:gosec // see Append
	return b
}

// Each calls f for every attribute, with its type free of flags.
func Each(b []byte, f func(typ uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < header {
			return ErrShort
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			return ErrShort
		}
		typ := binary.NativeEndian.Uint16(b[2:]) & typeMask
		if err := f(typ, b[header:n]); err != nil {
			return err
		}
		b = b[min(Align4(n), len(b)):]
	}
	return nil
}
