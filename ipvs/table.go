package ipvs

import "context"

// Table is the IPVS state of one network namespace, ours and that of others. Its methods may be called from several
// goroutines.
type Table interface {
	// Dump returns every virtual server in the namespace, ours or not, and every prefix and port bound to our device. A
	// namespace where nothing was ever programmed gives an empty state.
	Dump(ctx context.Context) (State, error)

	// Read returns those of the virtual servers that exist: what Dump says of them, at the cost of a few.
	Read(ctx context.Context, keys []Key) (map[Key]VirtualServer, error)

	// Bound returns what is bound, prefixes and ports, as Dump does, and no virtual servers.
	Bound(ctx context.Context) (State, error)

	// Apply tries every operation, in order, whatever becomes of the others, and returns those that failed (nil if
	// none did). Operations are idempotent: adding what is present makes it equal to what was asked (a virtual
	// server's configuration, a real server's weight, a binding's source), editing what is absent adds it (a real
	// server of an absent virtual server fails), deleting the absent succeeds. Editing never disturbs established
	// connections. An operation that does not pass [Op.Validate] fails with its error and changes nothing, as does
	// one that the kernel refuses (a scheduler that it does not have). When ctx ends, the operations not yet tried fail with its error.
	Apply(ctx context.Context, ops []Op) []*OpError

	// Conns returns the connection counts of a virtual server's real servers: nil for an absent virtual server,
	// empty for one without real servers.
	Conns(ctx context.Context, k Key) (map[Dest]Conns, error)
}
