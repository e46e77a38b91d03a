package nftnl

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/nftables"
)

// firstReg is the first of the kernel's sixteen registers of four bytes (NFT_REG32_00).
const firstReg = unix.NFT_REG32_00

// location is where the kernel finds a field, or how it changes it.
type location struct {
	size int // bytes
	// host is set for numbers in host byte order.
	host bool
	expr string // meta, ct, fib or payload
	key  uint32 // of meta or ct; the address of fib
	dir  int    // of ct: 0 original, 1 reply, -1 not asked for
	// base and offset are where a payload is.
	base, offset uint32
	// csum is the kind of checksum that a change has to be followed by, csumAt its offset from base, csumPseudo
	// whether the address takes part in that of the transport header.
	csum, csumAt uint32
	csumPseudo   bool
}

const csumSCTP = 2 // NFT_PAYLOAD_CSUM_SCTP in linux/netfilter/nf_tables.h, from Linux 5.11 on

// locate returns where a field is in a table of the family. Offsets are those of the protocols' headers.
func locate(f nftables.Field, family nftables.Family) (location, error) {
	network := func(at uint32, size int) location {
		return location{size: size, expr: "payload", base: unix.NFT_PAYLOAD_NETWORK_HEADER, offset: at}
	}
	transport := func(at, csum, csumAt uint32) location {
		return location{size: 2, expr: "payload", base: unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset: at, csum: csum, csumAt: csumAt}
	}
	conntrack := func(key uint32, size int) location { return location{size: size, expr: "ct", key: key} }
	v6 := family == nftables.IPv6
	switch f {
	case nftables.SourceAddr, nftables.DestAddr:
		return address(f, v6), nil
	case nftables.OriginalDest:
		if v6 {
			return conntrack(unix.NFT_CT_DST_IP6, 16), nil
		}
		return conntrack(unix.NFT_CT_DST_IP, 4), nil
	case nftables.OriginalDestPort:
		return conntrack(unix.NFT_CT_PROTO_DST, 2), nil
	case nftables.OriginalSrcPort:
		return conntrack(unix.NFT_CT_PROTO_SRC, 2), nil
	case nftables.ReplySource:
		l := conntrack(unix.NFT_CT_SRC_IP, 4)
		if v6 {
			l = conntrack(unix.NFT_CT_SRC_IP6, 16)
		}
		l.dir = 1
		return l, nil
	case nftables.ConnState:
		return location{size: 4, host: true, expr: "ct", key: unix.NFT_CT_STATE, dir: -1}, nil
	case nftables.TCPFlags:
		l := transport(13, unix.NFT_PAYLOAD_CSUM_NONE, 0)
		l.size = 1
		return l, nil
	case nftables.Direction:
		return location{size: 1, expr: "ct", key: unix.NFT_CT_DIRECTION, dir: -1}, nil
	case nftables.SourcePort:
		return transport(0, unix.NFT_PAYLOAD_CSUM_NONE, 0), nil
	case nftables.DestPort:
		return transport(2, unix.NFT_PAYLOAD_CSUM_NONE, 0), nil
	case nftables.TCPSourcePort:
		return transport(0, unix.NFT_PAYLOAD_CSUM_INET, 16), nil
	case nftables.TCPDestPort:
		return transport(2, unix.NFT_PAYLOAD_CSUM_INET, 16), nil
	case nftables.UDPSourcePort:
		return transport(0, unix.NFT_PAYLOAD_CSUM_INET, 6), nil
	case nftables.UDPDestPort:
		return transport(2, unix.NFT_PAYLOAD_CSUM_INET, 6), nil
	case nftables.SCTPSourcePort:
		return transport(0, csumSCTP, 8), nil
	case nftables.UDPChecksum:
		return transport(6, unix.NFT_PAYLOAD_CSUM_NONE, 0), nil
	case nftables.Proto:
		return location{size: 1, expr: "meta", key: unix.NFT_META_L4PROTO}, nil
	case nftables.Mark:
		return location{size: 4, host: true, expr: "meta", key: unix.NFT_META_MARK}, nil
	case nftables.SourceType:
		return location{size: 4, host: true, expr: "fib", key: unix.NFTA_FIB_F_SADDR}, nil
	case nftables.DestType:
		return location{size: 4, host: true, expr: "fib", key: unix.NFTA_FIB_F_DADDR}, nil
	case nftables.ARPOperation:
		return network(6, 2), nil
	case nftables.ARPTarget:
		return network(24, 4), nil
	}
	return location{}, fmt.Errorf("unknown field %d", f)
}

// address returns where the source or destination address of an IP header is.
func address(f nftables.Field, v6 bool) location {
	l := location{size: 4, expr: "payload", base: unix.NFT_PAYLOAD_NETWORK_HEADER, offset: 12, csumPseudo: true}
	l.csum, l.csumAt = unix.NFT_PAYLOAD_CSUM_INET, 10
	if v6 {
		l.size, l.offset, l.csum, l.csumAt = 16, 8, unix.NFT_PAYLOAD_CSUM_NONE, 0
	}
	if f == nftables.DestAddr {
		l.offset += uint32(l.size) //nolint:gosec // 4 or 16
	}
	return l
}

// compiler appends the expressions of one rule.
type compiler struct {
	family nftables.Family
	out    []byte
}

// compile returns the expressions of a rule, as the content of NFTA_RULE_EXPRESSIONS.
func compile(r nftables.Rule, family nftables.Family) ([]byte, error) {
	c := compiler{family: family}
	for _, s := range r {
		if err := c.statement(s); err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Text(family), err)
		}
	}
	return c.out, nil
}

func (c *compiler) statement(s nftables.Statement) error {
	switch s := s.(type) {
	case nftables.Is:
		return c.is(s)
	case nftables.Within:
		return c.within(s)
	case nftables.FromInterface:
		c.fromInterface(s.Name)
	case nftables.In:
		return c.lookup(s.Fields, s.Set, lookupOptions{not: s.Not})
	case nftables.MarkBy:
		if err := c.lookup(s.Fields, s.Map, lookupOptions{mark: true}); err != nil {
			return err
		}
		c.setMark()
	case nftables.SetMark:
		c.immediate(binary.NativeEndian.AppendUint32(nil, s.Mark))
		c.setMark()
	case nftables.Copy:
		if err := c.load(s.From, firstReg); err != nil {
			return err
		}
		return c.store(s.To)
	case nftables.Store:
		c.immediate(binary.BigEndian.AppendUint16(nil, s.Port))
		return c.store(s.To)
	case nftables.Drop:
		c.drop()
	case nftables.Reject:
		c.reject(s.Reset)
	default:
		return fmt.Errorf("unknown statement %T", s)
	}
	return nil
}

// expression appends one expression with its attributes.
func (c *compiler) expression(name string, attrs []byte) {
	b, element := nlattr.Open(c.out, unix.NFTA_LIST_ELEM)
	b = nlattr.AppendString(b, unix.NFTA_EXPR_NAME, name)
	b, data := nlattr.Open(b, unix.NFTA_EXPR_DATA)
	b = nlattr.Close(append(b, attrs...), data)
	c.out = nlattr.Close(b, element)
}

// load puts a field into a register.
func (c *compiler) load(f nftables.Field, reg uint32) error {
	l, err := locate(f, c.family)
	if err != nil {
		return err
	}
	var b []byte
	switch l.expr {
	case "payload":
		b = nlattr.AppendUint32(b, unix.NFTA_PAYLOAD_DREG, reg)
		b = l.appendPayload(b)
	case "meta":
		b = nlattr.AppendUint32(b, unix.NFTA_META_DREG, reg)
		b = nlattr.AppendUint32(b, unix.NFTA_META_KEY, l.key)
	case "ct":
		b = nlattr.AppendUint32(b, unix.NFTA_CT_DREG, reg)
		b = nlattr.AppendUint32(b, unix.NFTA_CT_KEY, l.key)
		if l.dir >= 0 {
			b = nlattr.Append(b, unix.NFTA_CT_DIRECTION, uint8(l.dir)) //nolint:gosec // 0 or 1
		}
	case "fib":
		b = nlattr.AppendUint32(b, unix.NFTA_FIB_DREG, reg)
		b = nlattr.AppendUint32(b, unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
		b = nlattr.AppendUint32(b, unix.NFTA_FIB_FLAGS, l.key)
	}
	c.expression(l.expr, b)
	return nil
}

func (l location) appendPayload(b []byte) []byte {
	b = nlattr.AppendUint32(b, unix.NFTA_PAYLOAD_BASE, l.base)
	b = nlattr.AppendUint32(b, unix.NFTA_PAYLOAD_OFFSET, l.offset)
	return nlattr.AppendUint32(b, unix.NFTA_PAYLOAD_LEN, uint32(l.size)) //nolint:gosec // at most 16
}

// store writes the first register into the packet.
func (c *compiler) store(f nftables.Field) error {
	l, err := locate(f, c.family)
	if err != nil {
		return err
	}
	if l.expr != "payload" {
		return fmt.Errorf("%s cannot be written", f.Name(c.family))
	}
	b := nlattr.AppendUint32(nil, unix.NFTA_PAYLOAD_SREG, firstReg)
	b = l.appendPayload(b)
	b = nlattr.AppendUint32(b, unix.NFTA_PAYLOAD_CSUM_TYPE, l.csum)
	b = nlattr.AppendUint32(b, unix.NFTA_PAYLOAD_CSUM_OFFSET, l.csumAt)
	if l.csumPseudo {
		b = nlattr.AppendUint32(b, unix.NFTA_PAYLOAD_CSUM_FLAGS, unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR)
	}
	c.expression("payload", b)
	return nil
}

// compare goes on if the first register has, or has not, these bytes.
func (c *compiler) compare(value []byte, not bool) {
	op := uint32(unix.NFT_CMP_EQ)
	if not {
		op = unix.NFT_CMP_NEQ
	}
	b := nlattr.AppendUint32(nil, unix.NFTA_CMP_SREG, firstReg)
	b = nlattr.AppendUint32(b, unix.NFTA_CMP_OP, op)
	c.expression("cmp", appendData(b, unix.NFTA_CMP_DATA, value))
}

// appendData appends a value as nf_tables nests them.
func appendData(b []byte, typ uint16, value []byte) []byte {
	b, start := nlattr.Open(b, typ)
	return nlattr.Close(nlattr.Append(b, unix.NFTA_DATA_VALUE, value...), start)
}

func (c *compiler) is(s nftables.Is) error {
	if err := c.load(s.Field, firstReg); err != nil {
		return err
	}
	l, err := locate(s.Field, c.family)
	if err != nil {
		return err
	}
	value := binary.BigEndian.AppendUint32(nil, s.Value)[4-l.size:]
	if l.host {
		value = binary.NativeEndian.AppendUint32(nil, s.Value)
	}
	c.compare(value, s.Not)
	return nil
}

func (c *compiler) within(s nftables.Within) error {
	if err := c.load(s.Field, firstReg); err != nil {
		return err
	}
	value := s.Prefix.Addr().AsSlice()
	mask := make([]byte, len(value))
	for i := range s.Prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	b := nlattr.AppendUint32(nil, unix.NFTA_BITWISE_SREG, firstReg)
	b = nlattr.AppendUint32(b, unix.NFTA_BITWISE_DREG, firstReg)
	b = nlattr.AppendUint32(b, unix.NFTA_BITWISE_LEN, uint32(len(value))) //nolint:gosec // 4 or 16
	b = appendData(b, unix.NFTA_BITWISE_MASK, mask)
	b = appendData(b, unix.NFTA_BITWISE_XOR, make([]byte, len(value)))
	c.expression("bitwise", b)
	c.compare(value, false)
	return nil
}

// fromInterface compares the name's bytes, of a prefix only as many as it has.
func (c *compiler) fromInterface(name string) {
	b := nlattr.AppendUint32(nil, unix.NFTA_META_DREG, firstReg)
	c.expression("meta", nlattr.AppendUint32(b, unix.NFTA_META_KEY, unix.NFT_META_IIFNAME))
	if prefix, ok := strings.CutSuffix(name, "+"); ok {
		c.compare([]byte(prefix), false)
		return
	}
	value := make([]byte, unix.IFNAMSIZ)
	copy(value, name)
	c.compare(value, false)
}

// lookupOptions say what becomes of a lookup: whether it matches what is not there, or gets the mark of what is.
type lookupOptions struct{ not, mark bool }

// lookup looks the fields up in a set, each from a register of its own on, and leaves the mark of a map in the first.
func (c *compiler) lookup(fields []nftables.Field, set string, o lookupOptions) error {
	reg := uint32(firstReg)
	for _, f := range fields {
		if err := c.load(f, reg); err != nil {
			return err
		}
		l, err := locate(f, c.family)
		if err != nil {
			return err
		}
		reg += uint32(nlattr.Align4(l.size) / 4) //nolint:gosec // at most 4
	}
	b := nlattr.AppendString(nil, unix.NFTA_LOOKUP_SET, set)
	b = nlattr.AppendUint32(b, unix.NFTA_LOOKUP_SREG, firstReg)
	if o.mark {
		b = nlattr.AppendUint32(b, unix.NFTA_LOOKUP_DREG, firstReg)
	}
	if o.not {
		b = nlattr.AppendUint32(b, unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
	}
	c.expression("lookup", b)
	return nil
}

// setMark makes the first register the packet's mark.
func (c *compiler) setMark() {
	b := nlattr.AppendUint32(nil, unix.NFTA_META_SREG, firstReg)
	c.expression("meta", nlattr.AppendUint32(b, unix.NFTA_META_KEY, unix.NFT_META_MARK))
}

func (c *compiler) immediate(value []byte) {
	b := nlattr.AppendUint32(nil, unix.NFTA_IMMEDIATE_DREG, firstReg)
	c.expression("immediate", appendData(b, unix.NFTA_IMMEDIATE_DATA, value))
}

// reject takes the code of "port unreachable" in the family's ICMP (RFC 792, RFC 4443).
func (c *compiler) reject(reset bool) {
	kind, code := uint32(unix.NFT_REJECT_ICMP_UNREACH), uint8(3)
	if c.family == nftables.IPv6 {
		code = 4
	}
	if reset {
		kind = unix.NFT_REJECT_TCP_RST
	}
	b := nlattr.AppendUint32(nil, unix.NFTA_REJECT_TYPE, kind)
	if !reset {
		b = nlattr.Append(b, unix.NFTA_REJECT_ICMP_CODE, code)
	}
	c.expression("reject", b)
}

func (c *compiler) drop() {
	b := nlattr.AppendUint32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	b, data := nlattr.Open(b, unix.NFTA_IMMEDIATE_DATA)
	b, verdict := nlattr.Open(b, unix.NFTA_DATA_VERDICT)
	b = nlattr.AppendUint32(b, unix.NFTA_VERDICT_CODE, 0) // NF_DROP
	b = nlattr.Close(nlattr.Close(b, verdict), data)
	c.expression("immediate", b)
}
