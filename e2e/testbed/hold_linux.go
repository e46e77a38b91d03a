package testbed

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/florianl/go-nfqueue/v2"
)

// Hold keeps packets that rules of iptables or nf_tables on one host send to a queue of the kernel, until it lets them go on.
type Hold struct {
	host  *Host
	queue *nfqueue.Nfqueue
	stop  context.CancelFunc
	end   func() error

	mu   sync.Mutex
	held []uint32 // the kernel's numbers of the packets that are kept now, in order
	open bool
	errs []error
}

// Hold keeps the packets of a queue (target NFQUEUE) until ctx is done, or the hold or the bed is closed. The kernel drops
// what is still kept then. Add the rules afterwards: what they send to a queue that nobody reads is dropped.
func (h *Host) Hold(ctx context.Context, queue uint16) (*Hold, error) {
	ctx, cancel := context.WithCancel(ctx)
	d := &Hold{host: h, stop: cancel}
	err := h.Do(func() (err error) {
		d.queue, err = nfqueue.Open(&nfqueue.Config{NfQueue: queue, MaxQueueLen: 1024, Copymode: nfqueue.NfQnlCopyMeta})
		if err == nil {
			err = d.queue.RegisterWithErrorFunc(ctx, d.take, func(err error) int { d.failed(ctx, err); return 0 })
		}
		return err
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("testbed: queue %d of %s: %w", queue, h.Name, err)
	}
	d.end = sync.OnceValue(d.queue.Close)
	h.bed.own(d)
	context.AfterFunc(ctx, func() { _ = d.Close() })
	return d, nil
}

// take is called with one packet after the other.
func (d *Hold) take(a nfqueue.Attribute) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = append(d.held, *a.PacketID)
	if d.open {
		d.letGo()
	}
	return 0
}

// failed notes an error, unless it is that of the end.
func (d *Hold) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errs = append(d.errs, err)
}

// letGo sends what is kept on its way, in order. The caller holds the lock.
func (d *Hold) letGo() {
	for _, id := range d.held {
		if err := d.queue.SetVerdict(id, nfqueue.NfAccept); err != nil {
			d.errs = append(d.errs, err)
		}
	}
	d.held = nil
}

// Count returns how many packets are kept.
func (d *Hold) Count() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held), errors.Join(d.errs...)
}

// Release lets all packets go on that are kept, and from now on those that come.
func (d *Hold) Release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = true
	d.letGo()
	return errors.Join(d.errs...)
}

// Close ends the hold.
func (d *Hold) Close() error {
	d.stop()
	d.host.bed.disown(d)
	return d.end()
}
