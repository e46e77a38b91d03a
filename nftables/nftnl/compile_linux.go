package nftnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/nftables"
)

// The first and the last of the kernel's sixteen registers of four bytes.
const (
	firstReg = unix.NFT_REG32_00
	lastReg  = unix.NFT_REG32_15
)

// natRandomFully is NF_NAT_RANGE_PROTO_RANDOM_FULLY of linux/netfilter/nf_nat.h.
const natRandomFully = 1 << 4

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

// statement appends one statement.
//
//nolint:funlen // a table
func (c *compiler) statement(s nftables.Statement) error {
	switch s := s.(type) {
	case nftables.Is:
		return c.is(s)
	case nftables.Within:
		return c.within(s)
	case nftables.FromInterface:
		c.fromInterface(s)
	case nftables.In:
		return c.lookup(s.Fields, s.Set, lookupOptions{not: s.Not})
	case nftables.MarkBy:
		if err := c.lookup(s.Fields, s.Map, lookupOptions{value: true}); err != nil {
			return err
		}
		c.setMark()
	case nftables.SetMark:
		c.immediate(binary.NativeEndian.AppendUint32(nil, s.Mark))
		c.setMark()
	case nftables.Copy:
		return c.copy(s.To, s.From, firstReg)
	case nftables.Store:
		l, err := locate(s.To, c.family)
		if err != nil {
			return err
		}
		c.immediate(l.number(s.Value))
		return c.store(s.To, firstReg)
	case nftables.Forget:
		return c.forget(s)
	case nftables.Learn:
		return c.learn(s)
	case nftables.Recall:
		return c.recall(s)
	case nftables.MarkHas:
		if err := c.markAnd(s.Bits); err != nil {
			return err
		}
		c.compare(binary.NativeEndian.AppendUint32(nil, s.Bits), false)
	case nftables.MarkWithout:
		if err := c.markAnd(^s.Bits); err != nil {
			return err
		}
		c.setMark()
	case nftables.SourceNAT:
		return c.sourceNAT(s)
	case nftables.Accept:
		c.verdict(verdictAccept)
	case nftables.Drop:
		c.verdict(verdictDrop)
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

// copy writes a field into another one, through a register.
func (c *compiler) copy(to, from nftables.Field, reg uint32) error {
	t, errTo := locate(to, c.family)
	f, errFrom := locate(from, c.family)
	if err := errors.Join(errTo, errFrom); err != nil {
		return err
	}
	if t.size != f.size {
		return fmt.Errorf("%s has another size than %s", to.Name(c.family), from.Name(c.family))
	}
	if err := c.load(from, reg); err != nil {
		return err
	}
	return c.store(to, reg)
}

// store writes a register into the packet.
func (c *compiler) store(f nftables.Field, reg uint32) error {
	l, err := locate(f, c.family)
	if err != nil {
		return err
	}
	switch {
	case f == nftables.Priority:
		b := nlattr.AppendUint32(nil, unix.NFTA_META_SREG, reg)
		c.expression("meta", nlattr.AppendUint32(b, unix.NFTA_META_KEY, l.key))
		return nil
	case l.expr != "payload":
		return fmt.Errorf("%s cannot be written", f.Name(c.family))
	}
	b := nlattr.AppendUint32(nil, unix.NFTA_PAYLOAD_SREG, reg)
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
	c.compare(l.number(s.Value), s.Not)
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
	c.and(mask)
	c.compare(value, false)
	return nil
}

// markAnd loads those of these bits that the packet's mark has.
func (c *compiler) markAnd(bits uint32) error {
	if err := c.load(nftables.Mark, firstReg); err != nil {
		return err
	}
	c.and(binary.NativeEndian.AppendUint32(nil, bits))
	return nil
}

// sourceNAT translates the source address from a register, and the port to one at random.
func (c *compiler) sourceNAT(s nftables.SourceNAT) error {
	if s.To.IsValid() {
		c.immediate(s.To.AsSlice())
	} else if err := c.load(nftables.SourceAddr, firstReg); err != nil {
		return err
	}
	b := nlattr.AppendUint32(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_SNAT)
	b = nlattr.AppendUint32(b, unix.NFTA_NAT_FAMILY, uint32(c.family))
	b = nlattr.AppendUint32(b, unix.NFTA_NAT_REG_ADDR_MIN, firstReg)
	c.expression("nat", nlattr.AppendUint32(b, unix.NFTA_NAT_FLAGS, natRandomFully))
	return nil
}

// and keeps only the bits of the mask of what is in the registers, from the first one on.
func (c *compiler) and(mask []byte) {
	b := nlattr.AppendUint32(nil, unix.NFTA_BITWISE_SREG, firstReg)
	b = nlattr.AppendUint32(b, unix.NFTA_BITWISE_DREG, firstReg)
	b = nlattr.AppendUint32(b, unix.NFTA_BITWISE_LEN, uint32(len(mask))) //nolint:gosec // 4 or 16
	b = appendData(b, unix.NFTA_BITWISE_MASK, mask)
	b = appendData(b, unix.NFTA_BITWISE_XOR, make([]byte, len(mask)))
	c.expression("bitwise", b)
}

// fromInterface compares the name's bytes, of a prefix only as many as it has.
func (c *compiler) fromInterface(s nftables.FromInterface) {
	b := nlattr.AppendUint32(nil, unix.NFTA_META_DREG, firstReg)
	c.expression("meta", nlattr.AppendUint32(b, unix.NFTA_META_KEY, unix.NFT_META_IIFNAME))
	if prefix, ok := strings.CutSuffix(s.Name, "+"); ok {
		c.compare([]byte(prefix), s.Not)
		return
	}
	value := make([]byte, unix.IFNAMSIZ)
	copy(value, s.Name)
	c.compare(value, s.Not)
}

// lookupOptions say what becomes of a lookup: whether it matches what is not there, or gets the value of what is.
type lookupOptions struct{ not, value bool }

// lookup looks the fields up in a set, each from a register of its own on, and leaves the value of a map in the first.
func (c *compiler) lookup(fields []nftables.Field, set string, o lookupOptions) error {
	if _, err := c.loadAll(fields, firstReg); err != nil {
		return err
	}
	b := nlattr.AppendString(nil, unix.NFTA_LOOKUP_SET, set)
	b = nlattr.AppendUint32(b, unix.NFTA_LOOKUP_SREG, firstReg)
	if o.value {
		b = nlattr.AppendUint32(b, unix.NFTA_LOOKUP_DREG, firstReg)
	}
	if o.not {
		b = nlattr.AppendUint32(b, unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
	}
	c.expression("lookup", b)
	return nil
}

// loadAll puts the fields into registers, from one on, and returns the first register after them.
func (c *compiler) loadAll(fields []nftables.Field, reg uint32) (uint32, error) {
	for _, f := range fields {
		if err := c.load(f, reg); err != nil {
			return 0, err
		}
		n, err := c.registers(f)
		if err != nil {
			return 0, err
		}
		reg += n
	}
	return reg, nil
}

// registers returns how many registers a field takes.
func (c *compiler) registers(f nftables.Field) (uint32, error) {
	l, err := locate(f, c.family)
	return uint32(nlattr.Align4(l.size) / 4), err //nolint:gosec // at most 4
}

// learn puts fields into a map or set.
func (c *compiler) learn(s nftables.Learn) error {
	value, err := c.loadAll(s.By, firstReg)
	if err != nil {
		return err
	}
	if _, err := c.loadAll(s.Value, value); err != nil {
		return err
	}
	b := nlattr.AppendString(nil, unix.NFTA_DYNSET_SET_NAME, s.Map)
	b = nlattr.AppendUint32(b, unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
	b = nlattr.AppendUint32(b, unix.NFTA_DYNSET_SREG_KEY, firstReg)
	if len(s.Value) > 0 {
		b = nlattr.AppendUint32(b, unix.NFTA_DYNSET_SREG_DATA, value)
	}
	c.expression("dynset", b)
	return nil
}

// forget takes fields out of a set.
func (c *compiler) forget(s nftables.Forget) error {
	if _, err := c.loadAll(s.By, firstReg); err != nil {
		return err
	}
	b := nlattr.AppendString(nil, unix.NFTA_DYNSET_SET_NAME, s.Set)
	b = nlattr.AppendUint32(b, unix.NFTA_DYNSET_OP, opDelete)
	c.expression("dynset", nlattr.AppendUint32(b, unix.NFTA_DYNSET_SREG_KEY, firstReg))
	return nil
}

// opDelete is NFT_DYNSET_OP_DELETE of linux/netfilter/nf_tables.h.
const opDelete = 2

// recall writes what a map has for fields into others. The last register is free while that is done.
func (c *compiler) recall(s nftables.Recall) error {
	if err := c.lookup(s.By, s.Map, lookupOptions{value: true}); err != nil {
		return err
	}
	if s.Keep != 0 {
		if err := c.copy(s.Keep, s.To[0], lastReg); err != nil {
			return err
		}
	}
	reg := uint32(firstReg)
	for _, f := range s.To {
		if err := c.store(f, reg); err != nil {
			return err
		}
		n, err := c.registers(f)
		if err != nil {
			return err
		}
		reg += n
	}
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

// What becomes of a packet (NF_DROP and NF_ACCEPT in linux/netfilter.h).
const (
	verdictDrop   = 0
	verdictAccept = 1
)

// verdict ends the chain, or the packet.
func (c *compiler) verdict(code uint32) {
	b := nlattr.AppendUint32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	b, data := nlattr.Open(b, unix.NFTA_IMMEDIATE_DATA)
	b, verdict := nlattr.Open(b, unix.NFTA_DATA_VERDICT)
	b = nlattr.AppendUint32(b, unix.NFTA_VERDICT_CODE, code)
	b = nlattr.Close(nlattr.Close(b, verdict), data)
	c.expression("immediate", b)
}
