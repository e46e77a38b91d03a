package ipsetnl

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/iptables"
)

var _ iptables.Sets = (*Sets)(nil)

// Sets is the sets of the network namespace that it was opened in. It is safe for concurrent use; requests go
// one by one.
type Sets struct {
	mu   sync.Mutex
	conn *conn
}

// Open connects to the kernel's ipset, loading its module if need be, and checks that both speak the same
// protocol version. It belongs to the network namespace of the calling thread.
func Open() (*Sets, error) {
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("ipset: %w", err)
	}
	if err := checkProtocol(c); err != nil {
		return nil, errors.Join(fmt.Errorf("ipset: %w", err), c.Close())
	}
	return &Sets{conn: c}, nil
}

// Close closes the connection. The sets stay.
func (s *Sets) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.Close(); err != nil {
		return fmt.Errorf("ipset: close: %w", err)
	}
	return nil
}

func checkProtocol(c *conn) error {
	var newest, oldest uint8
	ask := nlattr.Append(nil, attrProtocol, protocolVersion)
	err := c.do(cmdProtocol, unix.NLM_F_ACK, ask, func(b []byte) error {
		return nlattr.Each(b, func(typ uint16, v []byte) (err error) {
			switch typ {
			case attrProtocol:
				newest, err = parseU8(v)
			case attrProtocolMin:
				oldest, err = parseU8(v)
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("ask for the protocol version (is module ip_set there?): %w", err)
	}
	if oldest == 0 { // a kernel before 4.20, which knows one version only
		oldest = newest
	}
	if protocolVersion < oldest || protocolVersion > newest {
		return fmt.Errorf("the kernel speaks protocol versions %d to %d, not %d", oldest, newest, protocolVersion)
	}
	return nil
}

// Ensure implements iptables.Sets.
func (s *Sets) Ensure(ctx context.Context, sets []iptables.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, err := s.headers()
	if err != nil {
		return fmt.Errorf("ipset: look for sets: %w", err)
	}
	var errs []error
	for _, set := range sets {
		if err := s.ensure(ctx, set, have); err != nil {
			errs = append(errs, fmt.Errorf("ipset: create %s: %w", set.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Sets) ensure(ctx context.Context, want iptables.Set, all map[string]setMessage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if want.Name == "" || len(want.Name) > maxNameLen {
		return fmt.Errorf("a name has 1 to %d characters", maxNameLen)
	}
	header, exists := all[want.Name]
	if !exists {
		err := s.create(want)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		if header, err = s.header(want.Name); err != nil {
			return fmt.Errorf("look at the one there: %w", err)
		}
	}
	have := header.set
	if have.Type != want.Type || have.Family != want.Family {
		return fmt.Errorf("%w: %s %s instead of %s %s", iptables.ErrSetType, have.Type, have.Family, want.Type, want.Family)
	}
	if have.MaxElem >= want.MaxElem {
		return nil
	}
	if err := s.grow(ctx, want); err != nil {
		return fmt.Errorf("grow from %d to %d entries: %w", have.MaxElem, want.MaxElem, err)
	}
	return nil
}

// create creates a set and fails with EEXIST if there is one of that name, whatever it is.
func (s *Sets) create(set iptables.Set) error {
	return s.conn.do(cmdCreate, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, createMessage(set), nil)
}

// headers returns all sets without their entries, by name, in one listing: a request for each would be dozens. Those that are
// not understood are left out: they are most likely of others, and what is asked of one by its name says why.
func (s *Sets) headers() (map[string]setMessage, error) {
	all := map[string]setMessage{}
	err := s.conn.do(cmdList, unix.NLM_F_DUMP, listAllMessage(listHeader), func(b []byte) error {
		m, err := parseSet(b)
		if err == nil && m.set.Type != "" { // the last message of a set has only its name
			all[m.set.Name] = m
		}
		return nil
	})
	return all, err
}

// header returns a set without its entries.
func (s *Sets) header(name string) (setMessage, error) {
	var set setMessage
	err := s.conn.do(cmdList, unix.NLM_F_DUMP, listMessage(name, listHeader), func(b []byte) error {
		m, err := parseSet(b)
		if m.set.Type != "" { // the last message of a set has only its name
			set = m
		}
		return err
	})
	return set, err
}

// Count implements iptables.Sets.
func (s *Sets) Count(ctx context.Context, sets []iptables.Set) (map[string]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.headers()
	if err != nil {
		return nil, fmt.Errorf("ipset: count entries: %w", err)
	}
	counts := map[string]int{}
	for _, set := range sets {
		err := ctx.Err()
		have, exists := all[set.Name]
		if err == nil && !exists {
			have, err = s.header(set.Name)
		}
		if errors.Is(err, iptables.ErrNoSet) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ipset: count %s: %w", set.Name, err)
		}
		counts[set.Name] = int(have.count)
	}
	return counts, nil
}

// growName is the set that a grown one is built in. No rule refers to it, so one that is there was left behind.
const growName = "kube-hop-grow"

// grow replaces a set by a larger one with the same entries. The exchange is one step for the packets, and rules
// that refer to the set follow it.
func (s *Sets) grow(ctx context.Context, want iptables.Set) error {
	if err := s.destroy(growName); err != nil {
		return fmt.Errorf("remove a leftover: %w", err)
	}
	larger := want
	larger.Name = growName
	if err := s.create(larger); err != nil {
		return err
	}
	err := s.copyTo(ctx, want.Name, growName)
	if err == nil {
		err = s.conn.do(cmdSwap, unix.NLM_F_ACK, swapMessage(growName, want.Name), nil)
	}
	return errors.Join(err, s.destroy(growName)) // the old one, or the new one if something failed
}

func (s *Sets) copyTo(ctx context.Context, from, to string) error {
	entries, err := s.entries(from)
	if err != nil {
		return err
	}
	ops := make([]iptables.SetOp, 0, len(entries))
	for _, e := range entries {
		ops = append(ops, iptables.SetOp{Set: to, Entry: e})
	}
	if failed := s.apply(ctx, ops); len(failed) > 0 {
		return fmt.Errorf("copy %d of %d entries: %w", len(failed), len(ops), failed[0])
	}
	return nil
}

// Dump implements iptables.Sets.
func (s *Sets) Dump(ctx context.Context, sets []iptables.Set) (iptables.SetState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := iptables.SetState{}
	for _, set := range sets {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("ipset: list %s: %w", set.Name, err)
		}
		entries, err := s.entries(set.Name)
		if errors.Is(err, iptables.ErrNoSet) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ipset: list %s: %w", set.Name, err)
		}
		m := make(map[iptables.Entry]struct{}, len(entries))
		for _, e := range entries {
			m[e] = struct{}{}
		}
		state[set.Name] = m
	}
	return state, nil
}

func (s *Sets) entries(name string) ([]iptables.Entry, error) {
	var out []iptables.Entry
	err := s.conn.do(cmdList, unix.NLM_F_DUMP, listMessage(name, 0), func(b []byte) error {
		m, err := parseSet(b)
		out = append(out, m.entries...)
		return err
	})
	return out, err
}

// Destroy implements iptables.Sets.
func (s *Sets) Destroy(ctx context.Context, sets []iptables.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, set := range sets {
		err := ctx.Err()
		if err == nil {
			err = s.destroy(set.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("ipset: destroy %s: %w", set.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Sets) destroy(name string) error {
	err := s.conn.do(cmdDestroy, unix.NLM_F_ACK, head(name), nil)
	if errors.Is(err, iptables.ErrNoSet) {
		return nil
	}
	return err
}
