package testbed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Options is what a bed is made of. The zero value is the bed of the package comment.
type Options struct {
	Nodes   []NodeSpec // default: n1 with a1 and a2, n2 with b1 and b2; at most 80
	Outside []string   // names of the outside clients; default: out
	// Timeout is how long [Host.Ask] waits before it calls a request dropped. Default 2 s; a refusal takes no longer
	// in a slow guest, so raise it only for guests where an answer does.
	Timeout time.Duration
}

// NodeSpec names a node and its pods. Names have at most ten characters.
type NodeSpec struct {
	Name string
	Pods []string
}

// Bed is a set of hosts in network namespaces. Its methods are for one goroutine; those of hosts for any number.
type Bed struct {
	N1, N2, A1, A2, B1, B2, Out *Host // those of the default bed that have these names, else nil

	timeout time.Duration
	prefix  string
	wire    *Host
	hosts   []*Host // wire included, in the order they were made
	nodes   []*Host
	outside int

	mu      sync.Mutex
	closers map[io.Closer]struct{} // servers, streams, sniffers and processes that still run
}

// New builds a bed. It needs root. A bed that cannot be finished is taken down again.
func New(ctx context.Context, opts Options) (*Bed, error) {
	b := &Bed{timeout: opts.Timeout, prefix: newPrefix(), closers: map[io.Closer]struct{}{}}
	if b.timeout == 0 {
		b.timeout = 2 * time.Second
	}
	if opts.Nodes == nil {
		opts.Nodes = []NodeSpec{{"n1", []string{"a1", "a2"}}, {"n2", []string{"b1", "b2"}}}
	}
	if opts.Outside == nil {
		opts.Outside = []string{"out"}
	}
	if err := b.build(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: %w", err), b.Close())
	}
	b.N1, b.N2, b.Out = b.Host("n1"), b.Host("n2"), b.Host("out")
	b.A1, b.A2, b.B1, b.B2 = b.Host("a1"), b.Host("a2"), b.Host("b1"), b.Host("b2")
	return b, nil
}

// newPrefix returns what the names of the bed's namespaces begin with: unique, because beds may run side by side.
func newPrefix() string {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails, crypto/rand says
	return "bed-" + hex.EncodeToString(id[:])
}

func (b *Bed) build(ctx context.Context, opts Options) error {
	if err := loadBridgeFilter(ctx); err != nil {
		return err
	}
	if err := b.addWire(); err != nil {
		return err
	}
	for _, n := range opts.Nodes {
		if err := b.addNode(n); err != nil {
			return err
		}
	}
	for _, name := range opts.Outside {
		if _, err := b.AddOutside(ctx, name); err != nil {
			return err
		}
	}
	for _, h := range b.hosts[1:] {
		if err := h.waitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// loadBridgeFilter makes the bridge-nf sysctls exist, which a namespace cannot bring in by itself.
func loadBridgeFilter(ctx context.Context) error {
	if _, err := os.Stat("/proc/sys/net/bridge"); err == nil {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "modprobe", "br_netfilter").CombinedOutput(); err != nil {
		return fmt.Errorf("load br_netfilter: %w: %s", err, out)
	}
	return nil
}

func (b *Bed) addWire() (err error) {
	if b.wire, err = b.newHost("wire", wireSysctls()...); err != nil {
		return err
	}
	b.wire.index = 0xff // only for the bridge's hardware address
	return b.wire.addBridge("br0", netip.PrefixFrom(wireGateway4, 24), netip.PrefixFrom(wireGateway6, 64))
}

// Host returns the host of that name, nil if there is none.
func (b *Bed) Host(name string) *Host {
	for _, h := range b.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Nodes returns the nodes in the order of the options.
func (b *Bed) Nodes() []*Host { return b.nodes }

// RouteVia makes every outside client reach the prefix by way of the node.
func (b *Bed) RouteVia(prefix netip.Prefix, node *Host) error {
	for _, h := range b.hosts[1:] {
		if h.Node == nil && !h.isNode() {
			if err := h.RouteVia(prefix, node); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close ends what still runs in the bed and removes its namespaces. A second call does nothing.
func (b *Bed) Close() error {
	b.mu.Lock()
	closers := b.closers
	b.closers = map[io.Closer]struct{}{}
	b.mu.Unlock()
	var errs []error
	for c := range closers {
		errs = append(errs, c.Close())
	}
	for _, h := range b.hosts {
		errs = append(errs, h.remove())
	}
	b.hosts, b.nodes = nil, nil
	return errors.Join(errs...)
}

// own makes Close close c, unless disown comes first.
func (b *Bed) own(c io.Closer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers[c] = struct{}{}
}

func (b *Bed) disown(c io.Closer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.closers, c)
}
