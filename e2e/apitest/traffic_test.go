//go:build e2e && linux

package apitest

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// interval is the time between two requests of continuous traffic. With less, the traffic takes the processors from
// everything else: on a slow machine an API server that starts beside it needs minutes.
const interval = 250 * time.Millisecond

// traffic is clients that do not stop asking, and connections that are held meanwhile.
type traffic struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	flows   []string
	answers map[string]int
	errs    []error
}

// startTraffic lets each of the clients ask each of the frontends with new connections, and over one that is held.
func startTraffic(t *testing.T, clients []*testbed.Host, frontends []netip.AddrPort) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{cancel: cancel, answers: map[string]int{}}
	t.Cleanup(func() { tr.stop() })
	for _, client := range clients {
		for _, f := range frontends {
			tr.goRepeat(ctx, fmt.Sprintf("requests of %s to %s", client, f), func() error {
				_, err := client.Ask(ctx, testbed.TCP, f)
				return err
			})
			s, err := client.Dial(ctx, testbed.TCP, f)
			if err != nil {
				t.Fatal(err)
			}
			tr.goRepeat(ctx, fmt.Sprintf("connection of %s to %s (%s)", client, f, s.Answer.Pod), s.Ping)
		}
	}
	return tr
}

func (tr *traffic) goRepeat(ctx context.Context, flow string, ask func() error) {
	tr.flows = append(tr.flows, flow)
	tr.wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for ctx.Err() == nil {
			tr.note(ctx, flow, ask())
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
}

func (tr *traffic) note(ctx context.Context, flow string, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case err == nil:
		tr.answers[flow]++
	case ctx.Err() == nil: // else it was cut off by stop
		tr.errs = append(tr.errs, fmt.Errorf("%s: after %d answers: %w", flow, tr.answers[flow], err))
	}
}

// goesOn waits until every flow has got n more answers, and reports what was lost since the last look.
func (tr *traffic) goesOn(t *testing.T, c *cluster, n int, during string) {
	t.Helper()
	tr.mu.Lock()
	least := map[string]int{}
	for _, flow := range tr.flows {
		least[flow] = tr.answers[flow] + n
	}
	tr.mu.Unlock()
	c.until(t, "traffic "+during, func() error {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for flow, want := range least {
			if got := tr.answers[flow]; got < want && len(tr.errs) == 0 {
				return fmt.Errorf("%s: %d answers, want %d", flow, got, want)
			}
		}
		return nil
	})
	tr.report(t, during)
}

// report fails the test for the losses since the last report.
func (tr *traffic) report(t *testing.T, during string) {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	total := 0
	for _, n := range tr.answers {
		total += n
	}
	t.Logf("%s: %d answers in all, %d losses", during, total, len(tr.errs))
	for _, err := range tr.errs[:min(len(tr.errs), 10)] {
		t.Errorf("%s: %v", during, err)
	}
	tr.errs = nil
}

// stop ends the traffic. Stopping twice is harmless.
func (tr *traffic) stop() {
	tr.cancel()
	tr.wg.Wait()
}
