//go:build e2e && linux

package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// deliveries tells when the API server delivered EndpointSlices to a watcher, which is a process of its own
// (e2e/bench/clock): this one is too busy with making changes to hear of them in time.
type deliveries struct {
	proc *testbed.Proc
	log  *os.File
	read *bufio.Reader
	part string                   // of a line that is not written to its end yet
	at   map[netip.Addr]time.Time // by the last endpoint; those that of has passed
}

// watchSlices notes what is delivered from now on. Close it.
func (r *run) watchSlices(ctx context.Context) (_ *deliveries, err error) {
	d := &deliveries{at: map[netip.Addr]time.Time{}}
	log := filepath.Join(r.dir, "clock.log")
	d.proc, err = r.node.Start(ctx, filepath.Join(r.out, "clock"), []string{r.kubeconfig, namespace}, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.log, err = os.Open(log); err != nil {
		return nil, err
	}
	d.read = bufio.NewReader(d.log)
	return d, r.await(ctx, askEvery, r.start, func() error {
		for {
			line, err := d.line()
			if err != nil {
				return fmt.Errorf("the watcher of deliveries does not watch yet; it says %q: %w", d.proc.Tail(3), err)
			}
			if line == "watching" {
				return nil
			}
		}
	})
}

// line returns the next line that the watcher has written, or io.EOF.
func (d *deliveries) line() (string, error) {
	text, err := d.read.ReadString('\n')
	d.part += text
	if err != nil {
		return "", err
	}
	line := strings.TrimSuffix(d.part, "\n")
	d.part = ""
	return line, nil
}

func (d *deliveries) close() error {
	errs := []error{d.proc.Kill()}
	if d.log != nil {
		errs = append(errs, d.log.Close())
	}
	return errors.Join(append(errs, os.Remove(d.proc.Log()))...)
}

// errUndelivered says that the watcher has not heard of a change yet.
var errUndelivered = errors.New("not delivered to a watcher")

// delivery is a slice that the watcher was sent.
type delivery struct {
	endpoint netip.Addr // the last one
	at       time.Time
}

// deliveredAt is what the watcher writes of it. What else it says is client-go's.
const deliveredAt = "delivered %s at %d"

// next returns the next delivery; errUndelivered says that there is none yet.
func (d *deliveries) next() (delivery, error) {
	for {
		line, err := d.line()
		if errors.Is(err, io.EOF) {
			select {
			case <-d.proc.Done():
				return delivery{}, fmt.Errorf("the watcher of deliveries has ended:\n%s", d.proc.Tail(3))
			default:
				return delivery{}, errUndelivered
			}
		}
		if err != nil {
			return delivery{}, err
		}
		if heard, is, err := parseDelivery(line, deliveredAt); is || err != nil {
			return heard, err
		}
	}
}

// parseDelivery reads a line that a watcher writes in that form; is is false for others.
func parseDelivery(line, form string) (heard delivery, is bool, err error) {
	var name string
	var at int64
	if n, _ := fmt.Sscanf(line, form, &name, &at); n != 2 {
		return delivery{}, false, nil
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return delivery{}, false, fmt.Errorf("a watcher says %q: %w", line, err)
	}
	return delivery{addr, time.Unix(0, at)}, true, nil
}

// of returns when the slice with that last endpoint came.
func (d *deliveries) of(last netip.Addr) (time.Time, error) {
	for {
		if at, ok := d.at[last]; ok {
			return at, nil
		}
		next, err := d.next()
		if err != nil {
			return time.Time{}, fmt.Errorf("%s: %w", last, err)
		}
		d.at[next.endpoint] = next.at
	}
}
