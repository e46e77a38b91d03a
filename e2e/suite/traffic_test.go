//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestFrontends: every kind of client reaches all endpoints in turn at every kind of frontend, by every protocol and
// family, and the pods see the source that they must.
func TestFrontends(t *testing.T) {
	c := shared(t)
	m := newService("frontends", 1, c.A2, c.B2)
	c.apply(t, m)
	for _, proto := range protos {
		for _, cl := range c.clients() {
			for _, f := range m.frontends(cl.via) {
				t.Run(fmt.Sprintf("%s %s to %s", proto, cl.host, f), func(t *testing.T) {
					c.askEvenly(t, cl, proto, f, "a2", "b2")
				})
			}
		}
	}
}

// askEvenly asks as often as there are pods; round robin must reach each of them once.
func (c *cluster) askEvenly(t *testing.T, cl client, proto testbed.Proto, f frontend, pods ...string) {
	t.Helper()
	reached := map[string]int{}
	var answers []testbed.Answer
	for range pods {
		var opts []testbed.Option
		if proto == testbed.UDP { // from a port that was used before it would be the same flow
			opts = append(opts, testbed.FromPort(freePort()))
		}
		a, err := cl.host.Ask(t.Context(), proto, f.addr, opts...)
		if err != nil {
			t.Fatal(err)
		}
		reached[a.Pod]++
		answers = append(answers, a)
		if want := cl.peers(f, c.Host(a.Pod)); !slices.Contains(want, a.Peer.Addr()) {
			t.Errorf("%s saw %s as its client, want one of %v", a.Pod, a.Peer.Addr(), want)
		}
	}
	want := map[string]int{}
	for _, p := range pods {
		want[p] = 1
	}
	if err := sameMap(reached, want); err != nil {
		t.Errorf("answers by pod: %v; one by one %v; connections at the node\n%s", err, answers, c.connections(t, cl, f))
	}
}

// connections returns what IPVS has of a frontend on the client's node, as ipvsadm shows it.
func (c *cluster) connections(t *testing.T, cl client, f frontend) string {
	t.Helper()
	var lines []string
	for _, n := range c.nodes {
		if n.Host != cl.via {
			continue
		}
		for l := range strings.SplitSeq(n.run(t, "ipvsadm", "-L", "-n", "-c"), "\n") {
			if strings.Contains(l, f.addr.String()) {
				lines = append(lines, l)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// TestHairpin: a pod that is the only endpoint reaches itself, and is not told apart from others by its address;
// nobody else loses theirs.
func TestHairpin(t *testing.T) {
	c := shared(t)
	m := newService("hairpin", 2, c.A1)
	c.apply(t, m)
	for _, proto := range protos {
		for _, f := range m.frontends(c.N1) {
			for _, cl := range []client{{c.A1, c.N1}, {c.A2, c.N1}} {
				t.Run(fmt.Sprintf("%s %s to %s", proto, cl.host, f), func(t *testing.T) {
					a, err := cl.host.Ask(t.Context(), proto, f.addr)
					if err != nil {
						t.Fatal(err)
					}
					if want := cl.peers(f, c.A1); a.Pod != "a1" || !slices.Contains(want, a.Peer.Addr()) {
						t.Errorf("answered by %s, which saw %s; want a1, which sees one of %v", a.Pod, a.Peer, want)
					}
				})
			}
		}
	}
}

// TestNoEndpoints: a Service without endpoints refuses at once, and answers as soon as it has one.
func TestNoEndpoints(t *testing.T) {
	c := shared(t)
	m := newService("empty", 3)
	c.apply(t, m)
	each := func(t *testing.T, check func(cl client, err error) error) {
		t.Helper()
		var wg sync.WaitGroup // side by side: the node's own connects are refused only after a second, see refused
		for _, cl := range c.clients() {
			for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} { // SCTP sockets ignore refusals
				wg.Go(func() {
					for _, f := range m.frontends(cl.via) {
						_, err := cl.host.Ask(t.Context(), proto, f.addr)
						if err := check(cl, err); err != nil {
							t.Errorf("%s %s to %s: %v", proto, cl.host, f, err)
						}
					}
				})
			}
		}
		wg.Wait()
	}
	t.Run("refused", func(t *testing.T) { each(t, refused) })
	c.apply(t, m.withPods(c.A2))
	t.Run("answered", func(t *testing.T) { each(t, func(_ client, err error) error { return err }) })
}

// refused reports an error unless the request was refused. A node's own packet is refused before it is sent, as by
// any rule that rejects in OUTPUT: a datagram's socket then says EPERM, and a TCP socket, which is locked while it
// sends, takes note only of what happens to its second SYN.
func refused(cl client, err error) error {
	if errors.Is(err, testbed.ErrRefused) || cl.host == cl.via && errors.Is(err, unix.EPERM) {
		return nil
	}
	return fmt.Errorf("%v, want refused", err)
}
