package ipsetnl

import (
	"fmt"
	"syscall"

	"github.com/kube-hop/kube-hop/iptables"
)

// Errno is what the kernel answered: a system error, or from 4096 on one of ipset's own.
type Errno uint32

// Source: enum ipset_errno in linux/netfilter/ipset/ip_set.h; ip_set_hash.h for those from 4352 on.
const (
	errProtocol     Errno = 4097
	errFindType     Errno = 4098
	errMaxSets      Errno = 4099
	errBusy         Errno = 4100
	errExistName2   Errno = 4101
	errTypeMismatch Errno = 4102
	errExist        Errno = 4103
	errInvalidCIDR  Errno = 4104
	errFamily       Errno = 4106
	errReferenced   Errno = 4108
	errIPv4         Errno = 4109
	errIPv6         Errno = 4110
	errHashFull     Errno = 4352
	errHashElem     Errno = 4353
	errInvalidProto Errno = 4354
	errMissingProto Errno = 4355
)

// Error returns the meaning of the number.
func (e Errno) Error() string {
	switch e {
	case errProtocol:
		return "the kernel's ipset did not understand the request"
	case errFindType:
		return "the kernel has no such set type (module ip_set_hash_*)"
	case errMaxSets:
		return "the kernel takes no more sets (parameter max_sets of module ip_set)"
	case errBusy, errReferenced:
		return "the set is in use"
	case errExistName2:
		return "the second set name is taken"
	case errTypeMismatch:
		return "the sets are of different types"
	case errExist:
		return "the entry exists, or does not"
	case errInvalidCIDR:
		return "invalid prefix length"
	case errFamily:
		return "the set type does not know the family"
	case errIPv4, errIPv6:
		return "missing address, or one of the other family"
	case errHashFull:
		return "the set is full"
	case errHashElem:
		return "the set cannot hold the all-zero entry"
	case errInvalidProto, errMissingProto:
		return "missing or unknown protocol"
	}
	if e < 4096 {
		return syscall.Errno(e).Error()
	}
	return fmt.Sprintf("ipset error %d", uint32(e))
}

// Is makes errors.Is recognise the errors of package iptables and the system's.
func (e Errno) Is(target error) bool {
	switch target {
	case iptables.ErrNoSet:
		return e == Errno(syscall.ENOENT)
	case iptables.ErrSetFull:
		return e == errHashFull
	case iptables.ErrSetInUse:
		return e == errBusy || e == errReferenced
	case iptables.ErrEntry:
		switch e {
		case errProtocol, errInvalidCIDR, errIPv4, errIPv6, errHashElem, errInvalidProto, errMissingProto:
			return true
		default:
			return false
		}
	}
	n, ok := target.(syscall.Errno)
	return ok && e == Errno(n)
}
