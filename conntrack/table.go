package conntrack

import "context"

// Table is the connection tracking table of one network namespace.
type Table interface {
	// Expire deletes the UDP entries of both families that fs calls stale, and no others, and returns how many it
	// deleted. After an error some may be left; calling it again is safe. Its cost is one walk of the kernel over the
	// table for each family that fs has, whatever the number of frontends; its memory that of the stale entries.
	Expire(ctx context.Context, fs Frontends) (deleted int, err error)
}
