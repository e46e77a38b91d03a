package nftnl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/nftables"
)

// Tables is the nftables.Tables of the kernel, in the network namespace of the thread that opened it.
type Tables struct {
	mu   sync.Mutex // one request at a time
	conn *conn
}

var _ nftables.Tables = (*Tables)(nil)

// Open opens a socket to nf_tables. Whether the kernel has what a table needs, [Tables.Try] finds out.
func Open() (*Tables, error) {
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &Tables{conn: c}, nil
}

// Close closes the socket. The state in the kernel stays.
func (t *Tables) Close() error {
	return t.conn.Close()
}

// Try finds out, for each table, whether the kernel can hold it, without leaving anything behind: it begins the
// transaction that would make it, under another name, and does not end it. The kernel loads its modules for that.
func (t *Tables) Try(_ context.Context, tables []nftables.Table) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, table := range tables {
		table.Name += "-try"
		requests, err := tableFromNothing(table)
		if err == nil {
			err = t.transact(requests, true)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("nftables: table %s: %w", table.Family, err))
		}
	}
	return errors.Join(errs...)
}

// transact carries out a transaction and returns its first refusal.
func (t *Tables) transact(requests []request, try bool) error {
	refused, err := t.conn.transact(requests, try)
	if err != nil {
		return err
	}
	for i := range requests {
		if err := refused[i]; err != nil {
			return fmt.Errorf("%s: %w", commandName(requests[i].cmd), err)
		}
	}
	return nil
}

func commandName(cmd uint8) string {
	switch cmd {
	case unix.NFT_MSG_NEWTABLE:
		return "add table"
	case unix.NFT_MSG_DELTABLE:
		return "delete table"
	case unix.NFT_MSG_NEWSET:
		return "add set"
	case unix.NFT_MSG_NEWCHAIN:
		return "add chain"
	case unix.NFT_MSG_DELCHAIN:
		return "delete chain"
	case unix.NFT_MSG_NEWRULE:
		return "add rule"
	case unix.NFT_MSG_DELRULE:
		return "delete rules"
	}
	return fmt.Sprintf("command %d", cmd)
}

// Ensure implements nftables.Tables.
func (t *Tables) Ensure(ctx context.Context, want []nftables.Table) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var repaired []string
	var errs []error
	for _, table := range want {
		lines, err := t.ensure(ctx, table)
		if err != nil {
			errs = append(errs, fmt.Errorf("nftables: table %s %s: %w", table.Family, table.Name, err))
			continue
		}
		repaired = append(repaired, lines...)
	}
	return repaired, errors.Join(errs...)
}

func (t *Tables) ensure(ctx context.Context, want nftables.Table) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	have, err := t.read(want)
	if err != nil {
		return nil, err
	}
	r := repair{want: want, have: have}
	if err := r.plan(); err != nil || len(r.lines) == 0 {
		return nil, err
	}
	return r.lines, t.transact(r.requests, false)
}

// Dump implements nftables.Tables.
func (t *Tables) Dump(ctx context.Context, of []nftables.Table) (nftables.State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := nftables.State{}
	for _, table := range of {
		for _, s := range table.Sets {
			if s.Learned > 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("nftables: list %s: %w", table.ID(s.Name), err)
			}
			elements, err := t.elements(table, s)
			if err != nil {
				return nil, fmt.Errorf("nftables: list %s: %w", table.ID(s.Name), err)
			}
			if elements != nil {
				state[table.ID(s.Name)] = elements
			}
		}
	}
	return state, nil
}

// Holds implements nftables.Tables.
func (t *Tables) Holds(ctx context.Context, set nftables.SetID, keys ...nftables.Key) (map[nftables.Key]bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	holds := map[nftables.Key]bool{}
	var errs []error
	for part := range slices.Chunk(keys, maxAsk) {
		err := ctx.Err()
		if err == nil {
			err = t.lookFor(set, part, holds)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("nftables: look for elements of %s: %w", set, err))
		}
	}
	return holds, errors.Join(errs...)
}

// lookFor enters in holds what a set says of keys.
func (t *Tables) lookFor(set nftables.SetID, keys []nftables.Key, holds map[nftables.Key]bool) error {
	requests := make([]request, len(keys))
	for i, k := range keys {
		requests[i] = holdsRequest(set, k)
	}
	var errs []error
	err := t.conn.askEach(requests, func(i int, _ []byte, err error) {
		switch {
		case errors.Is(err, unix.ENOENT): // the set or the element
			holds[keys[i]] = false
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", keys[i], err))
		default:
			holds[keys[i]] = true
		}
	})
	return errors.Join(append(errs, err)...)
}

// Remove implements nftables.Tables.
func (t *Tables) Remove(ctx context.Context, tables []nftables.Table) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, table := range tables {
		err := ctx.Err()
		if err == nil {
			err = t.transact([]request{deleteTableRequest(table)}, false)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("nftables: table %s %s: %w", table.Family, table.Name, err))
		}
	}
	return errors.Join(errs...)
}
