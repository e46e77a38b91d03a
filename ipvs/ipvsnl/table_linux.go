package ipvsnl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// DefaultDevice is the device that carries bound addresses. It has the name that kube-proxy gave it, since other
// software looks for that.
const DefaultDevice = "kube-ipvs0"

// Options say where a Table works.
type Options struct {
	Device string // dummy device for bound prefixes; empty for DefaultDevice
	Netns  string // path of a network namespace such as /run/netns/blue; empty for the calling thread's
}

// Table is the ipvs.Table of the kernel.
type Table struct {
	device string
	ns     netns.NsHandle // not open when Options.Netns was empty

	mu     sync.Mutex // one request at a time: answers on a socket carry no more than a sequence number
	vs     *libipvs.Handle
	routes *netlink.Handle
	// unbinding holds the prefixes whose routes are deleted by us, for WatchBound to tell from deletions by others. It
	// is nil while nobody watches.
	unbinding map[netip.Prefix]bool
	// requests carries changes, many to a system call; vs is for those that need an answer of their own.
	requests *batcher
	// options reads what it can, nil where it is not to be had; lists reads the rest.
	options *options
	lists   *listing
}

var _ ipvs.Table = (*Table)(nil)

// Open opens the sockets of a Table. It fails with ErrNoIPVS where the kernel has no IPVS, even as a module.
func Open(opts Options) (*Table, error) {
	// Sockets belong to the namespace of the thread that opens them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	t := &Table{device: cmp.Or(opts.Device, DefaultDevice), ns: netns.None()}
	if err := t.open(opts.Netns); err != nil {
		t.Close()
		return nil, fmt.Errorf("open the IPVS table: %w", err)
	}
	return t, nil
}

func (t *Table) open(path string) (err error) {
	if path == "" {
		// Not by entering our own namespace again: that takes a privilege that is needed for nothing else.
		t.routes, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_GENERIC)
	} else {
		if t.ns, err = netns.GetFromPath(path); err != nil {
			return fmt.Errorf("network namespace %s: %w", path, err)
		}
		t.routes, err = netlink.NewHandleAt(t.ns, unix.NETLINK_ROUTE, unix.NETLINK_GENERIC)
	}
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if err := requireIPVS(context.Background(), t.routes); err != nil {
		return err
	}
	if t.vs, err = libipvs.New(path); err != nil {
		return fmt.Errorf("generic netlink: %w", err)
	}
	if t.requests, err = openBatcher(t.ns, t.routes); err != nil {
		return err
	}
	if t.lists, err = openListing(t.ns, t.requests.family); err != nil {
		return err
	}
	t.options = openOptions(t.ns)
	return nil
}

// inNamespace calls f on a thread in the network namespace, the calling one if ns is not open.
func inNamespace(ns netns.NsHandle, f func() error) error {
	if !ns.IsOpen() {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and its namespace with it
		err := netns.Set(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Close closes the sockets. The state in the kernel stays.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.vs != nil {
		t.vs.Close()
	}
	if t.routes != nil {
		t.routes.Close()
	}
	if t.requests != nil {
		_ = t.requests.Close() // it held nothing that could be lost
	}
	if t.lists != nil {
		_ = t.lists.Close() // as above
	}
	if t.options != nil {
		_ = t.options.close()
	}
	if t.ns.IsOpen() {
		_ = t.ns.Close() // nothing was written through it
	}
}

// Apply implements ipvs.Table.
func (t *Table) Apply(ctx context.Context, ops []ipvs.Op) []*ipvs.OpError {
	var failed []*ipvs.OpError
	var link link
	for len(ops) > 0 {
		n, errs := t.batch(ctx, ops, &link)
		failed, ops = append(failed, errs...), ops[n:]
	}
	return failed
}

// try carries out one operation. The lock is taken for each anew, so that a long Apply keeps nobody waiting.
func (t *Table) try(ctx context.Context, op ipvs.Op, link *link) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := op.Validate(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch op.Verb {
	case ipvs.Bind:
		return t.bind(op, link)
	case ipvs.Unbind:
		return t.unbind(op, link)
	case ipvs.BindPort:
		return t.bindPort(op, link)
	case ipvs.UnbindPort:
		return t.unbindPort(op)
	case ipvs.AddVirtual, ipvs.EditVirtual, ipvs.DeleteVirtual:
		return t.changeVirtual(op)
	case ipvs.AddReal, ipvs.EditReal, ipvs.DeleteReal:
		return t.changeReal(op)
	}
	return nil // Validate knows no other verb
}

func (t *Table) changeVirtual(op ipvs.Op) error {
	s := service(op.Key, op.Config)
	var err error
	switch op.Verb {
	case ipvs.AddVirtual:
		if err = t.vs.NewService(&s); errors.Is(err, unix.EEXIST) {
			err = t.vs.UpdateService(&s)
		}
	case ipvs.EditVirtual:
		if err = t.vs.UpdateService(&s); errors.Is(err, unix.ESRCH) {
			err = t.vs.NewService(&s)
		}
	default:
		if err = t.vs.DelService(&s); errors.Is(err, unix.ESRCH) {
			err = nil
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the kernel has no scheduler %s: %w", op.Config.Scheduler, err)
	}
	return err
}

func (t *Table) changeReal(op ipvs.Op) error {
	s, d := service(op.Key, ipvs.Config{}), destination(op.Real)
	var err error
	switch op.Verb {
	case ipvs.AddReal:
		if err = t.vs.NewDestination(&s, &d); errors.Is(err, unix.EEXIST) {
			err = t.vs.UpdateDestination(&s, &d)
		}
	case ipvs.EditReal:
		if err = t.vs.UpdateDestination(&s, &d); errors.Is(err, unix.ENOENT) {
			err = t.vs.NewDestination(&s, &d)
		}
	default:
		if err = t.vs.DelDestination(&s, &d); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			err = nil
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("no such virtual server: %w", err)
	}
	return err
}
