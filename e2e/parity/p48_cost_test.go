//go:build e2e && linux

package parity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestP48Cost(t *testing.T) {
	r := begin(t, "P48", "A change starts no process per entry: as few with 30 Services as with 10, and none for one endpoint")
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
	changes := func(s *service) int { // processes that three changes of one endpoint start
		before := w.count()
		for _, e := range [][]endpoint{pods(r.A1, r.B1), pods(r.A1), pods(r.A1, r.B1)} {
			s.endpoints(e...)
			r.settle()
		}
		return w.count() - before
	}
	s := r.service("p48")
	s.endpoints(ready(r.A1))
	more := func(from, to int) {
		for i := from; i < to; i++ {
			r.service(fmt.Sprintf("p48-%d", i)).endpoints(ready(r.A1))
		}
		r.settle()
	}
	more(1, 10)
	few := changes(s)
	before := w.count()
	more(10, 30)
	growth := w.count() - before
	many := changes(s)
	if w.lost.Load() {
		r.Fatalf("the kernel lost process events")
	}
	r.Logf("processes: %d for 3 changes with 10 Services, %d for 20 new Services, %d for 3 changes with 30 Services", few, growth, many)
	if few > 0 || many > 0 {
		r.Errorf("3 changes of an endpoint start %d processes with 10 Services and %d with 30, want none", few, many)
	}
	if entries := 20 * 4 * 2; growth >= entries {
		r.Errorf("20 new Services with %d frontends start %d processes on two nodes", entries, growth)
	}
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
