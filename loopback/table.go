package loopback

import (
	"context"
	"errors"

	"github.com/kube-hop/kube-hop/iptables"
)

// SetName is what operations on the table call it, as if it were one of the sets of package iptables. It holds both
// families.
const SetName = "KUBE-HOP-LOOPBACK"

// ErrUnavailable is the answer of a kernel that lacks something. Node ports on loopback are then refused.
var ErrUnavailable = errors.New("node ports on loopback are not available")

// Table is the node ports of one network namespace that answer on loopback. An entry is a frontend: loopback with the
// same family, protocol and port leads to its address. Entries of SCTP, which the kernel cannot redirect, are refused.
type Table interface {
	// Ensure puts in place what leads connections, and returns what was missing of it, a line each. What the table
	// holds stays. It must have succeeded once before Apply.
	Ensure(ctx context.Context) (missing []string, err error)

	// Dump returns the entries; none before the first Ensure.
	Dump(ctx context.Context) (map[iptables.Entry]struct{}, error)

	// Apply tries every operation, in order, whatever becomes of the others, and returns those that failed (nil if none
	// did). Adding the present and deleting the absent succeed. Adding replaces the entry that has the same family,
	// protocol and port, without a moment in which there is none; deleting that former entry is then deleting the absent.
	// Established connections go on whatever happens. When ctx ends, the operations not yet tried fail with its error.
	Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError

	// Remove takes everything away; an absent table is fine. Ensure brings it back, empty.
	Remove(ctx context.Context) error
}
