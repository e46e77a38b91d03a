//go:build e2e && linux

package apitest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

// requests bounds how many requests are sent to see every pod answer; round robin needs far fewer.
const requests = 40

// slow is when the requests to one frontend get a line in the log: a first packet that was lost costs a second, and is
// not a loss to the client.
const slow = time.Second

// at returns the addresses with the port.
func at(port uint16, addrs ...netip.Addr) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, port))
	}
	return out
}

// clients are a pod on each node, a node and the client outside.
func (c *cluster) clients() []*testbed.Host {
	return []*testbed.Host{c.bed.A1, c.bed.B1, c.bed.N1, c.bed.Out}
}

// nodesOf returns the nodes that must serve a frontend: the one whose address it is, or all.
func (c *cluster) nodesOf(addr netip.Addr) []*testbed.Host {
	for _, n := range c.bed.Nodes() {
		if n.Addr(addr) == addr {
			return []*testbed.Host{n}
		}
	}
	return c.bed.Nodes()
}

// appears waits until the frontends lead to exactly these pods on every node and the first request of every client
// is answered; then no request may be lost.
func (c *cluster) appears(t *testing.T, frontends []netip.AddrPort, pods ...*testbed.Host) {
	t.Helper()
	c.awaitPods(t, frontends, pods...)
	for _, f := range frontends {
		for _, client := range c.clients() {
			// The address is bound, and let through the guard, a moment after the virtual server is complete.
			c.until(t, fmt.Sprintf("first answer from %s to %s", f, client), func() error {
				_, err := client.Ask(t.Context(), testbed.TCP, f, testbed.Timeout(time.Second))
				return err
			})
		}
	}
	c.askAll(t, frontends, pods...)
}

// follows is appears for frontends that serve already: no request may be lost at any time.
func (c *cluster) follows(t *testing.T, frontends []netip.AddrPort, pods ...*testbed.Host) {
	t.Helper()
	c.awaitPods(t, frontends, pods...)
	c.askAll(t, frontends, pods...)
}

// disappears waits until no node has the virtual servers. From then on every request must end with one of the errors.
func (c *cluster) disappears(t *testing.T, frontends []netip.AddrPort, want ...error) {
	t.Helper()
	for _, f := range frontends {
		for _, n := range c.nodesOf(f.Addr()) {
			c.until(t, fmt.Sprintf("%s gone from %s", f, n), func() error {
				_, found, err := c.servers(t.Context(), n, f)
				if err == nil && found {
					err = errors.New("still there")
				}
				return err
			})
		}
	}
	c.fails(t, frontends, want...)
}

// fails asks once from every client; each must end with one of the errors.
func (c *cluster) fails(t *testing.T, frontends []netip.AddrPort, want ...error) {
	t.Helper()
	timeout := 10 * time.Second
	if slices.Contains(want, testbed.ErrTimeout) {
		timeout = 300 * time.Millisecond
	}
	for _, f := range frontends {
		for _, client := range c.clients() {
			answer, err := client.Ask(t.Context(), testbed.TCP, f, testbed.Timeout(timeout))
			if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
				t.Errorf("%s to %s: answer %+v, error %v; want %v", client, f, answer, err, want)
			}
		}
	}
}

// awaitPods waits until on every node the real servers that get new connections are exactly the pods.
func (c *cluster) awaitPods(t *testing.T, frontends []netip.AddrPort, pods ...*testbed.Host) {
	t.Helper()
	for _, f := range frontends {
		var want []ipvs.Dest
		for _, p := range pods {
			want = append(want, ipvs.Dest{Addr: p.Addr(f.Addr()), Port: podPort})
		}
		slices.SortFunc(want, ipvs.Dest.Compare)
		for _, n := range c.nodesOf(f.Addr()) {
			c.until(t, fmt.Sprintf("real servers of %s on %s", f, n), func() error {
				got, found, err := c.servers(t.Context(), n, f)
				if err == nil && (!found || !slices.Equal(got, want)) {
					err = fmt.Errorf("virtual server there: %t, real servers %v, want %v", found, got, want)
				}
				return err
			})
		}
	}
}

// servers returns the real servers of a virtual server on the node that do not drain.
func (c *cluster) servers(ctx context.Context, n *testbed.Host, f netip.AddrPort) (_ []ipvs.Dest, found bool, err error) {
	state, err := c.tables[n].Dump(ctx)
	if err != nil {
		return nil, false, err
	}
	v, found := state.Virtual[ipvs.Key{Addr: f.Addr(), Port: f.Port(), Proto: ipvs.TCP}]
	var dests []ipvs.Dest
	for _, r := range v.Real {
		if r.Weight != 0 {
			dests = append(dests, r.Dest)
		}
	}
	return dests, found, nil
}

// askAll sends requests from every client to every frontend.
func (c *cluster) askAll(t *testing.T, frontends []netip.AddrPort, pods ...*testbed.Host) {
	t.Helper()
	if len(pods) == 0 {
		c.fails(t, frontends, testbed.ErrRefused)
		return
	}
	for _, f := range frontends {
		for _, client := range c.clients() {
			tally := ask(t.Context(), client, f, pods)
			if err := tally.Err(); err != nil {
				t.Errorf("%s to %s: %v", client, f, err)
			}
			if tally.Took > slow {
				t.Logf("%s to %s: %d requests took %s", client, f, tally.N, tally.Took)
			}
		}
	}
}

// ask sends requests until every pod has answered. Every request must be answered, by one of the pods; the tally ends
// with the first that is not.
func ask(ctx context.Context, client *testbed.Host, dst netip.AddrPort, pods []*testbed.Host) (tally testbed.Tally) {
	for range requests {
		a, err := client.Ask(ctx, testbed.TCP, dst)
		if err == nil && !slices.ContainsFunc(pods, func(p *testbed.Host) bool { return p.Name == a.Pod }) {
			err = fmt.Errorf("answered by %s, want only %v", a.Pod, pods)
		}
		if tally.Add(a, err); err != nil || len(tally.Pods) == len(pods) {
			return tally
		}
	}
	tally.Errors = append(tally.Errors, fmt.Errorf("answers only from %v in %d requests, want %v", tally.Pods, requests, pods))
	return tally
}

// getStatus returns the status of the URL, as seen from h.
func getStatus(ctx context.Context, h *testbed.Host, url string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := h.HTTP().Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
