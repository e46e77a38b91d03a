//go:build e2e && linux

package suite

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestSharedPorts (P31): a client may use one source port for connections through several VIPs to the same pod. With
// so few ports that this happens all the time, connections that are held and new ones beside them lose nothing.
func TestSharedPorts(t *testing.T) {
	const ports, requests = 16, 60
	c := shared(t)
	m, other := newService("shared-ports", 75, c.A2, c.B2), newService("shared-ports-other", 76, c.A2, c.B2)
	c.apply(t, m, other)
	first := nextPort + 1
	nextPort += ports
	var wg sync.WaitGroup
	for _, from := range []*testbed.Host{c.A1, c.Out, c.N1} {
		for i, f := range append(m.frontends(c.N1), other.frontends(c.N1)...) {
			heldPort := first + uint16(i%ports)
			held, err := from.Dial(t.Context(), testbed.TCP, f.addr, testbed.FromPort(heldPort))
			if err != nil {
				t.Errorf("%s to %s from port %d: %v", from, f, heldPort, err)
				continue
			}
			wg.Go(func() {
				if err := askAround(t, from, f, held, func() uint16 {
					for {
						if p := first + uint16(rand.IntN(ports)); p != heldPort { // one pair of ends, one connection
							return p
						}
					}
				}, requests); err != nil {
					t.Error(err)
				}
				_ = held.Close()
			})
		}
	}
	wg.Wait()
}

// askAround asks with new connections, and over the held one in between, until something fails.
func askAround(t *testing.T, from *testbed.Host, f frontend, held *testbed.Stream, port func() uint16, requests int) error {
	for i := range requests {
		p := port()
		if _, err := from.Ask(t.Context(), testbed.TCP, f.addr, testbed.FromPort(p)); err != nil {
			return fmt.Errorf("request %d of %s to %s from port %d: %w", i, from, f, p, err)
		}
		if err := held.Ping(); err != nil {
			return fmt.Errorf("connection of %s to %s from port %d, after %d requests: %w", from, f, held.Local().Port(), i, err)
		}
	}
	return nil
}
