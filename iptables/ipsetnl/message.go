package ipsetnl

import (
	"math/bits"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/iptables"
)

func head(name string) []byte {
	b := nlattr.Append(nil, attrProtocol, protocolVersion)
	return nlattr.AppendString(b, attrSetName, name)
}

func createMessage(s iptables.Set) []byte {
	b := head(s.Name)
	b = nlattr.AppendString(b, attrTypeName, string(s.Type))
	b = nlattr.Append(b, attrRevision, revision(s.Type))
	b = nlattr.Append(b, attrFamily, nfproto(s.Family))
	b, start := nlattr.Open(b, attrData)
	b = appendNet32(b, attrHashSize, hashSize(s.MaxElem))
	b = appendNet32(b, attrMaxElem, s.MaxElem)
	return nlattr.Close(b, start)
}

// hashSize returns the number of buckets to start with. The kernel doubles it as the set fills up, so a large
// limit costs no memory until it is used.
func hashSize(maxElem uint32) uint32 {
	const least, most = 64, 1024 // IPSET_MIMINAL_HASHSIZE and IPSET_DEFAULT_HASHSIZE in ip_set_hash_gen.h
	wanted := min(max(maxElem, least), most)
	return 1 << bits.Len32(wanted-1) // the next power of two
}

func listMessage(name string, flags uint32) []byte {
	return appendNet32(head(name), attrFlags, flags)
}

// listAllMessage asks for every set there is.
func listAllMessage(flags uint32) []byte {
	return appendNet32(nlattr.Append(nil, attrProtocol, protocolVersion), attrFlags, flags)
}

func swapMessage(from, to string) []byte {
	return nlattr.AppendString(head(from), attrSetName2, to)
}

// A batch holds at most this many entries: 20 kB of the largest ones. The kernel holds its ipset lock for the
// whole message, and a nested attribute ends at 64 kB.
const maxBatch = 256

// batchMessage holds entries of one set, numbered from 1.
func batchMessage(name string, ops []iptables.SetOp) []byte {
	// The kernel overwrites this number with that of the entry that failed, and wants it to be there.
	b := appendHost32(head(name), attrLineno, 0)
	b, start := nlattr.Open(b, attrADT)
	for i, op := range ops {
		b = appendEntry(b, op.Entry, uint32(i+1))
	}
	return nlattr.Close(b, start)
}

// nextBatch returns how many operations from the first one on, which can be sent, can go in one message with it.
func nextBatch(ops []iptables.SetOp) int {
	n := 1
	for n < min(len(ops), maxBatch) && ops[n].Set == ops[0].Set && ops[n].Delete == ops[0].Delete &&
		ops[n].Entry.Check() == nil {
		n++
	}
	return n
}
