package sockhook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/loopback"
)

// Options say where the kernel's file systems are. The zero value is where every distribution has them.
type Options struct {
	BPF    string // of type bpf; empty for /sys/fs/bpf
	Cgroup string // of type cgroup2; empty for /sys/fs/cgroup, or unified in it
}

// Table is the kernel's table of one network namespace.
type Table struct {
	dir    string // of the pins
	cgroup string
	cookie uint64

	mu           sync.Mutex
	ports, flows *ebpf.Map // nil until Ensure, and after Remove
}

var _ loopback.Table = (*Table)(nil)

// Open returns the table of the calling thread's network namespace. It changes nothing, and fails with
// [loopback.ErrUnavailable] and the reason if the kernel cannot do what is needed.
func Open(o Options) (*Table, error) {
	t, err := open(o)
	if err == nil {
		err = t.try()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", loopback.ErrUnavailable, err)
	}
	return t, nil
}

func open(o Options) (*Table, error) {
	if o.BPF == "" {
		o.BPF = "/sys/fs/bpf"
	}
	if !isType(o.BPF, unix.BPF_FS_MAGIC) {
		return nil, fmt.Errorf("no BPF file system is mounted on %s", o.BPF)
	}
	candidates := []string{o.Cgroup}
	if o.Cgroup == "" {
		candidates = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
	}
	t := &Table{}
	for _, c := range candidates {
		if isType(c, unix.CGROUP2_SUPER_MAGIC) {
			t.cgroup = c
			break
		}
	}
	if t.cgroup == "" {
		return nil, fmt.Errorf("no control groups of version 2 are mounted on %s", candidates[0])
	}
	var err error
	if t.cookie, err = cookie(); err != nil {
		return nil, fmt.Errorf("number of the network namespace (Linux 5.14 and newer tell it): %w", err)
	}
	t.dir = filepath.Join(o.BPF, "kube-hop", strconv.FormatUint(t.cookie, 10))
	return t, nil
}

func isType(path string, magic int64) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && int64(s.Type) == magic //nolint:unconvert // not an int64 everywhere
}

// cookie returns the number of the thread's network namespace, which no other has until the machine starts again.
func cookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return c, os.NewSyscallError("getsockopt", err)
}

// try loads every program without attaching it.
func (t *Table) try() error {
	ports, err := ebpf.NewMap(portMap())
	if err != nil {
		return err //nolint:wrapcheck // says what failed
	}
	defer ports.Close()
	flows, err := ebpf.NewMap(flowMap())
	if err != nil {
		return err //nolint:wrapcheck // says what failed
	}
	defer flows.Close()
	for _, h := range hooks() {
		p, err := load(h, t.cookie, ports, flows)
		if err != nil {
			return err
		}
		p.Close()
	}
	return nil
}

// The names of the maps' pins.
const (
	pinPorts = "ports"
	pinFlows = "flows"
)

// portMap has room for every node port of an ordinary range in both families and protocols, five times.
func portMap() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: pinPorts, Type: ebpf.Hash, KeySize: 4, ValueSize: 16, MaxEntries: 1 << 16,
		Flags: unix.BPF_F_NO_PREALLOC,
	}
}

// flowMap remembers the last UDP sockets. A forgotten one gets its answers from the node's address, as they came.
func flowMap() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: pinFlows, Type: ebpf.LRUHash, KeySize: 32, ValueSize: 16, MaxEntries: 1 << 13,
	}
}

// Ensure implements [loopback.Table].
func (t *Table) Ensure(ctx context.Context) (missing []string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	missing, renewed, err := t.openMaps()
	if err != nil {
		return missing, fmt.Errorf("loopback: %w", err)
	}
	var errs []error
	for _, h := range hooks() {
		absent, err := t.attach(h, renewed)
		if err != nil {
			errs = append(errs, fmt.Errorf("loopback: %s: %w", h.name, err))
		} else if absent {
			missing = append(missing, "hook "+h.name)
		}
	}
	if len(errs) > 0 {
		t.closeMaps() // so that the next Ensure goes over all hooks again
	}
	return missing, errors.Join(errs...)
}

// openMaps opens the pinned maps, or makes those that are not there. renewed is set when this process has not used
// them before: programs that are in place may use others, or be those of another version.
func (t *Table) openMaps() (missing []string, renewed bool, err error) {
	for _, spec := range []*ebpf.MapSpec{portMap(), flowMap()} {
		pin := filepath.Join(t.dir, spec.Name)
		if _, err := os.Stat(pin); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, "map "+spec.Name)
		}
	}
	if t.ports != nil && len(missing) == 0 {
		return nil, false, nil
	}
	t.closeMaps()
	ports, err := t.openMap(portMap())
	if err != nil {
		return missing, false, err
	}
	flows, err := t.openMap(flowMap())
	if err != nil {
		ports.Close()
		return missing, false, err
	}
	t.ports, t.flows = ports, flows
	return missing, true, nil
}

func (t *Table) openMap(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	spec.Pinning = ebpf.PinByName
	o := ebpf.MapOptions{PinPath: t.dir}
	m, err := ebpf.NewMapWithOptions(spec, o)
	if errors.Is(err, ebpf.ErrMapIncompatible) { // of another version: it is filled again at once
		if err := os.Remove(filepath.Join(t.dir, spec.Name)); err != nil {
			return nil, err //nolint:wrapcheck // a PathError
		}
		m, err = ebpf.NewMapWithOptions(spec, o)
	}
	return m, err //nolint:wrapcheck // says what failed
}

func (t *Table) closeMaps() {
	if t.ports != nil {
		t.ports.Close()
		t.flows.Close()
		t.ports, t.flows = nil, nil
	}
}

// Close lets go of the table. What is in place goes on working.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeMaps()
}

// Dump implements [loopback.Table].
func (t *Table) Dump(ctx context.Context) (map[iptables.Entry]struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := map[iptables.Entry]struct{}{}
	if t.ports == nil {
		return entries, nil
	}
	var k [4]byte
	var v [16]byte
	all := t.ports.Iterate()
	for all.Next(&k, &v) {
		entries[entryOf(k, v)] = struct{}{}
	}
	if err := errors.Join(all.Err(), ctx.Err()); err != nil {
		return nil, fmt.Errorf("loopback: reading the ports: %w", err)
	}
	return entries, nil
}

var errNotReady = errors.New("loopback: the table does not exist yet")

// Apply implements [loopback.Table].
func (t *Table) Apply(ctx context.Context, ops []iptables.SetOp) []*iptables.SetError {
	t.mu.Lock()
	defer t.mu.Unlock()
	var failed []*iptables.SetError
	for _, op := range ops {
		err := ctx.Err()
		if err == nil {
			err = loopback.Check(op.Entry)
		}
		if err == nil {
			err = t.apply(op)
		}
		if err != nil {
			failed = append(failed, &iptables.SetError{Op: op, Err: err})
		}
	}
	return failed
}

func (t *Table) apply(op iptables.SetOp) error {
	if t.ports == nil {
		return errNotReady
	}
	k, want := portKey(op.Entry), address(op.Entry)
	if !op.Delete {
		return t.ports.Put(k, want) //nolint:wrapcheck // SetError names the object
	}
	var have [16]byte
	err := t.ports.Lookup(k, &have)
	if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && have != want {
		return nil
	}
	if err == nil {
		err = t.ports.Delete(k)
	}
	return err //nolint:wrapcheck // SetError names the object
}
