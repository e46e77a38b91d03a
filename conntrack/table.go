package conntrack

import "context"

// Table is the connection tracking table of one network namespace.
type Table interface {
	// Expire deletes the entries of both families that c calls stale, and no others, and returns how many it
	// deleted. After an error some may be left; calling it again is safe. Its cost is a small number of walks of the
	// kernel over the table, whatever the number of frontends; its memory that of the stale entries.
	Expire(ctx context.Context, c Cleanup) (deleted int, err error)
}
