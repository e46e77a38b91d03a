package nftnl

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/nftables"
)

// listTries is how often a listing is begun again when what it lists changes meanwhile, by somebody else.
const listTries = 10

// contents is what the kernel holds of a table, without elements.
type contents struct {
	sets   map[string]nftables.Set
	chains map[string]nftables.Chain // without rules
	rules  map[string][]string       // the comments, by chain
}

// read returns what the kernel holds of a table; nothing if the table is absent.
func (t *Tables) read(of nftables.Table) (contents, error) {
	var c contents
	err := t.list(func() error {
		c = contents{map[string]nftables.Set{}, map[string]nftables.Chain{}, map[string][]string{}}
		return errors.Join(
			t.conn.dump(listRequest(of, unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE), func(b []byte) error {
				return c.addSet(b, of)
			}),
			t.conn.dump(listRequest(of, unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE), func(b []byte) error {
				return c.addChain(b, of.Name)
			}),
			t.conn.dump(listRequest(of, unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE), func(b []byte) error {
				return c.addRule(b, of.Name)
			}),
		)
	})
	return c, err
}

// list lists until nothing changed meanwhile. An absent table has nothing to list.
func (t *Tables) list(try func() error) error {
	var err error
	for range listTries {
		if err = try(); !errors.Is(err, errInterrupted) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// listRequest asks for a table's objects of a kind. Old kernels do not look at the name, so answers are checked.
func listRequest(t nftables.Table, cmd uint8, nameAttr uint16) request {
	return request{cmd: cmd, family: t.Family, attrs: nlattr.AppendString(nil, nameAttr, t.Name)}
}

// attrs returns the attributes of a message by type.
func attrs(b []byte) (map[uint16][]byte, error) {
	out := map[uint16][]byte{}
	err := nlattr.Each(b, func(t uint16, v []byte) error {
		out[t] = v
		return nil
	})
	return out, err
}

func text(b []byte) string {
	if len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// number reads a number in network byte order; 0 if it is absent.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (c contents) addSet(b []byte, of nftables.Table) error {
	a, err := attrs(b)
	if err != nil || text(a[unix.NFTA_SET_TABLE]) != of.Name {
		return err
	}
	s := nftables.Set{Name: text(a[unix.NFTA_SET_NAME])}
	if t := a[unix.NFTA_SET_TIMEOUT]; len(t) == 8 {
		s.Learned = time.Duration(binary.BigEndian.Uint64(t)) * time.Millisecond //nolint:gosec // as it was set
	}
	s.Value = parseKeyType(a[unix.NFTA_SET_DATA_TYPE], a[unix.NFTA_SET_DATA_LEN], of.Family)
	if number(a[unix.NFTA_SET_FLAGS]) == setFlags(s) {
		s.Key = parseKeyType(a[unix.NFTA_SET_KEY_TYPE], a[unix.NFTA_SET_KEY_LEN], of.Family)
	}
	c.sets[s.Name] = s
	return nil
}

// parseKeyType is the inverse of keyType; zero for a type that is not used here.
func parseKeyType(typ, size []byte, f nftables.Family) nftables.KeyType {
	for _, k := range []nftables.KeyType{
		nftables.AddrProtoPort, nftables.Addr, nftables.PacketMark, nftables.AddrPort, nftables.AddrPorts,
	} {
		if t, s := keyType(k, f); number(typ) == t && number(size) == s {
			return k
		}
	}
	return 0
}

func (c contents) addChain(b []byte, table string) error {
	a, err := attrs(b)
	if err != nil || text(a[unix.NFTA_CHAIN_TABLE]) != table {
		return err
	}
	hook, err := attrs(a[unix.NFTA_CHAIN_HOOK])
	if err != nil {
		return err
	}
	name := text(a[unix.NFTA_CHAIN_NAME])
	c.chains[name] = nftables.Chain{
		Name: name, Hook: nftables.Hook(number(hook[unix.NFTA_HOOK_HOOKNUM])), //nolint:gosec // small
		Priority: int32(number(hook[unix.NFTA_HOOK_PRIORITY])), //nolint:gosec // two's complement on the wire
		NAT:      text(a[unix.NFTA_CHAIN_TYPE]) == "nat",
	}
	return nil
}

func (c contents) addRule(b []byte, table string) error {
	a, err := attrs(b)
	if err != nil || text(a[unix.NFTA_RULE_TABLE]) != table {
		return err
	}
	chain := text(a[unix.NFTA_RULE_CHAIN])
	c.rules[chain] = append(c.rules[chain], parseComment(a[unix.NFTA_RULE_USERDATA]))
	return nil
}

// elements returns the elements of a set; nil if it is absent. The kernel continues a listing by the number of elements that
// it has sent (nft_rhash_walk in net/netfilter/nft_set_hash.c). Where it makes the hash table larger meanwhile, which it does
// some time after many were added, their order changes: some are sent twice, and as many are not sent at all.
func (t *Tables) elements(of nftables.Table, s nftables.Set) (map[nftables.Key]uint32, error) {
	var out map[nftables.Key]uint32
	b := nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, of.Name)
	r := request{cmd: unix.NFT_MSG_GETSETELEM, family: of.Family, attrs: nlattr.AppendString(b, unix.NFTA_SET_ELEM_LIST_SET, s.Name)}
	err := t.list(func() error {
		out = map[nftables.Key]uint32{}
		sent := 0
		err := t.conn.dump(r, func(b []byte) error {
			return parseElements(b, s.Key, func(k nftables.Key, mark uint32) { sent, out[k] = sent+1, mark })
		})
		switch {
		case errors.Is(err, unix.ENOENT):
			out = nil
		case err == nil && sent > len(out):
			err = errInterrupted
		}
		return err
	})
	return out, err
}
