//go:build e2e && linux

package parity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

func TestP48Cost(t *testing.T) {
	more := 300
	if testing.Short() {
		more = 30
	}
	r := begin(t, "P48", fmt.Sprintf("A change of an endpoint starts no process and costs as few kernel operations with %d Services as with 10; "+
		"new Services start no process per entry", more))
	for _, n := range r.proxied() { // or looking after what is there would count
		r.restart(n, r.subject.period("30m"))
	}
	w, err := watchExecs()
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer w.close()
	r.must(r.Out.Command(r.Context(), "true").Run())
	r.until("the watch sees a program", func() error { // one that sees nothing would prove nothing
		if w.count() == 0 {
			return errors.New("no event")
		}
		return nil
	})
	s := r.service("p48")
	s.endpoints(ready(r.A1))
	r.ballast("p48-few", 9)
	few := r.costOf(w, s)
	before := w.count()
	r.ballast("p48-more", more-10)
	growth := w.count() - before
	many := r.costOf(w, s)
	if w.lost.Load() {
		r.Fatalf("the kernel lost process events")
	}
	r.saw("3 changes of one endpoint: %s with 10 Services, %s with %d; %d processes for %d new Services", few, many, more, growth, more-10)
	if few.processes > 0 || many.processes > 0 {
		r.Errorf("3 changes of an endpoint start %d processes with 10 Services and %d with %d, want none", few.processes, many.processes, more)
	}
	if 2*many.operations > 3*few.operations { // what the Services of the marker cost varies a little
		r.Errorf("3 changes of an endpoint cost %d kernel operations with 10 Services and %d with %d", few.operations, many.operations, more)
	}
	if entries := (more - 10) * 4 * 2; growth >= entries {
		r.Errorf("%d new Services with %d frontends start %d processes on two nodes", more-10, entries, growth)
	}
}

// ballast stores n Services with an external IP each, and waits until they are programmed.
func (r *row) ballast(name string, n int) {
	r.Helper()
	first := netip.MustParseAddr("198.18.48.0")
	if name != "p48-few" {
		first = netip.MustParseAddr("198.18.49.0")
	}
	at := make([]string, n)
	for i := range at {
		at[i], first = first.Next().String(), first.Next()
	}
	r.many(name, n, r.A1, func(i int, s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalIPs = corev1.ServiceTypeNodePort, at[i:i+1]
	})
	r.settle()
}

// cost is what changes cost on both nodes.
type cost struct {
	processes  int
	operations int // of the kernel; -1 where the subject does not count them
}

func (c cost) String() string {
	if c.operations < 0 {
		return fmt.Sprintf("%d processes", c.processes)
	}
	return fmt.Sprintf("%d processes and %d kernel operations", c.processes, c.operations)
}

// costOf returns what three changes of one endpoint cost.
func (r *row) costOf(w *execWatch, s *service) cost {
	r.Helper()
	processes, operations := w.count(), r.operations()
	for _, e := range [][]endpoint{pods(r.A1, r.B1), pods(r.A1), pods(r.A1, r.B1)} {
		s.endpoints(e...)
		r.settle()
	}
	out := cost{processes: w.count() - processes, operations: -1}
	if r.subject.kubeHop() {
		out.operations = r.operations() - operations
	}
	return out
}

// operations returns how many operations the subject has sent to the kernels of both nodes, if it says so.
func (r *row) operations() (n int) {
	r.Helper()
	if !r.subject.kubeHop() {
		return 0
	}
	for _, node := range r.proxied() {
		m, err := node.Metrics(r.Context(), metricsURL)
		r.must(err)
		n += int(m["kubehop_kernel_operations_total"])
	}
	return n
}

// execWatch counts the programs that are started anywhere on the machine.
type execWatch struct {
	file  *os.File
	execs atomic.Int64
	lost  atomic.Bool
	done  chan struct{}
}

// From linux/cn_proc.h and linux/connector.h.
const (
	cnIdxProc, cnValProc = 1, 1
	procMcastListen      = 1
	procEventExec        = 2
	cnHeader             = 20 // struct cn_msg without data
)

// watchExecs subscribes to the kernel's process events.
func watchExecs() (*execWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("process events: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) // lost tells if it does not suffice
	w := &execWatch{file: os.NewFile(uintptr(fd), "process events"), done: make(chan struct{})}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}), w.listen(fd)); err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("process events: %w", err)
	}
	go w.loop()
	return w, nil
}

func (w *execWatch) listen(fd int) error {
	msg := make([]byte, unix.NLMSG_HDRLEN+cnHeader+4)
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], unix.NLMSG_DONE)
	body := msg[unix.NLMSG_HDRLEN:]
	binary.NativeEndian.PutUint32(body[0:], cnIdxProc)
	binary.NativeEndian.PutUint32(body[4:], cnValProc)
	binary.NativeEndian.PutUint16(body[16:], 4) // length of the data
	binary.NativeEndian.PutUint32(body[cnHeader:], procMcastListen)
	return unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (w *execWatch) loop() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, unix.ENOBUFS) {
			w.lost.Store(true)
			continue
		}
		if err != nil {
			return
		}
		if at := unix.NLMSG_HDRLEN + cnHeader; n >= at+4 && binary.NativeEndian.Uint32(buf[at:]) == procEventExec {
			w.execs.Add(1)
		}
	}
}

// count returns how many programs were started so far.
func (w *execWatch) count() int { return int(w.execs.Load()) }

func (w *execWatch) close() {
	_ = w.file.Close()
	<-w.done
}
