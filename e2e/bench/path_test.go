//go:build e2e && linux

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

const (
	// pathClients is how many clients ask at once where the number of connections a second is measured.
	pathClients = 4
	// warmUp is how many samples of each kind come before those that count.
	warmUp = 50
	// answerLimit ends a wait for an answer that does not come.
	answerLimit = 30 * time.Second
)

// path measures connections and requests from a pod to another of the same node, through the marker's ClusterIP and
// straight, by turns. The Services of the load are what may be in their way.
func (r *run) path(ctx context.Context) error {
	direct := netip.AddrPortFrom(r.bed.A2.Addr4, podPort)
	cluster := netip.AddrPortFrom(markerIP(), servicePort)
	err := r.await(ctx, syncEvery, r.start, func() error {
		_, err := r.bed.A1.Ask(ctx, testbed.TCP, cluster)
		return err
	})
	if err != nil {
		return err
	}
	goOn, err := r.cp.Pause()
	if err != nil {
		return err
	}
	return errors.Join(r.measurePath(ctx, direct, cluster), goOn())
}

// measurePath measures while nobody else has anything to do: what the API server does by itself, again and again, takes as
// much time as half of the connections.
func (r *run) measurePath(ctx context.Context, direct, cluster netip.AddrPort) error {
	straight, through, err := byTurns(r.bed.A1, r.samples, func() (time.Duration, error) { return connectOnce(direct) },
		func() (time.Duration, error) { return connectOnce(cluster) })
	if err != nil {
		return err
	}
	if err := r.notePath(straight, through, result.ConnectDirect, result.ConnectP50, result.ConnectP99); err != nil {
		return err
	}
	if err := r.requests(direct, cluster); err != nil {
		return err
	}
	if err := r.connectRate(ctx, result.ConnectRateDirect, direct); err != nil {
		return err
	}
	return r.connectRate(ctx, result.ConnectRate, cluster)
}

func (r *run) notePath(straight, through []time.Duration, direct, p50, p99 string) error {
	if err := r.noteQuantiles(through, p50, p99, "from a pod to another of its node"); err != nil {
		return err
	}
	slices.Sort(straight)
	return r.noteResult(result.Result{Figure: direct, Value: milliseconds(quantile(straight, 0.5)), Samples: len(straight)})
}

// requests measures requests over connections that stay open.
func (r *run) requests(direct, cluster netip.AddrPort) error {
	var open [2]int
	for i, dst := range []netip.AddrPort{direct, cluster} {
		err := r.bed.A1.Do(func() (err error) {
			open[i], err = dial(dst)
			return err
		})
		if err != nil {
			return err
		}
		defer unix.Close(open[i])
	}
	straight, through, err := byTurns(r.bed.A1, r.samples, func() (time.Duration, error) { return ask(open[0]) },
		func() (time.Duration, error) { return ask(open[1]) })
	if err != nil {
		return err
	}
	return r.notePath(straight, through, result.RequestDirect, result.RequestP50, result.RequestP99)
}

// connectRate measures how many connections clients can make at once.
func (r *run) connectRate(ctx context.Context, figure string, dst netip.AddrPort) error {
	g, _ := errgroup.WithContext(ctx)
	begin := time.Now()
	for range pathClients {
		g.Go(func() error {
			return r.bed.A1.Do(func() error {
				for range r.samples {
					if _, err := connectOnce(dst); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return r.noteResult(result.Result{
		Figure: figure, Value: float64(pathClients*r.samples) / time.Since(begin).Seconds(),
		Samples: pathClients * r.samples, Note: fmt.Sprintf("%d clients", pathClients),
	})
}

// byTurns calls both n times on one thread in the host's namespace.
func byTurns(h *testbed.Host, n int, one, other func() (time.Duration, error)) (a, b []time.Duration, err error) {
	err = h.Do(func() error {
		for i := range warmUp + n {
			x, err := one()
			if err != nil {
				return err
			}
			y, err := other()
			if err != nil {
				return err
			}
			if i >= warmUp {
				a, b = append(a, x), append(b, y)
			}
		}
		return nil
	})
	return a, b, err
}

// connectOnce makes a connection to an echo server, asks once and closes it. Plain system calls: the runtime's poller would
// be most of what is measured.
func connectOnce(dst netip.AddrPort) (time.Duration, error) {
	begin := time.Now()
	fd, err := dial(dst)
	if err != nil {
		return 0, err
	}
	took := time.Since(begin)
	if err := unix.Close(fd); err != nil {
		return 0, fmt.Errorf("close connection to %s: %w", dst, err)
	}
	return took, nil
}

// dial connects to an echo server and asks once.
func dial(dst netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	limit := unix.NsecToTimeval(int64(answerLimit))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: dst.Addr().As4(), Port: int(dst.Port())})
	}
	if err == nil {
		_, err = ask(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", dst, err)
	}
	return fd, nil
}

// ask sends a line and reads one.
func ask(fd int) (time.Duration, error) {
	begin := time.Now()
	if _, err := unix.Write(fd, []byte("hello\n")); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	buf, n := make([]byte, 256), 0
	for !bytes.HasSuffix(buf[:n], []byte("\n")) {
		got, err := unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) { // a socket with a timeout is not restarted after a signal of the runtime
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if got == 0 {
			return 0, fmt.Errorf("the connection was closed after %q", buf[:n])
		}
		n += got
	}
	return time.Since(begin), nil
}
