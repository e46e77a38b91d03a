//go:build e2e && linux

package parity

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

const (
	// patience is how long a client waits for an answer that must come.
	patience = 10 * time.Second
	// dropTime is how long a client waits to call a request dropped: longer than the second after which a node's own
	// connect learns that it is refused, since the kernel takes note only of what happens to the second SYN.
	dropTime = 2500 * time.Millisecond
	// fewest is how many requests are sent at least, in each family, to see whether a pod answers that must not: one that
	// is chosen by chance half of the time is missed in both families once in a million times.
	fewest = 10
	// most is how many requests are sent to see every pod that must answer.
	most = 60
)

// outcome is how requests must end.
type outcome struct {
	text string
	err  error           // what they fail with, nil if they are answered
	pods []*testbed.Host // who answers: each of them, and nobody else
	from []*testbed.Host // as whose address the pods see the client; any if empty
}

// refused is an error at once, dropped is silence.
func refused() outcome { return outcome{text: "refused", err: testbed.ErrRefused} }
func dropped() outcome { return outcome{text: "dropped", err: testbed.ErrTimeout} }

// answeredBy is an answer from every one of the pods and from nobody else.
func answeredBy(pods ...*testbed.Host) outcome {
	return outcome{text: fmt.Sprintf("answered by %v", pods), pods: pods}
}

// seeing adds that the pods see an address of one of the hosts as their peer; of a node, any that it has.
func (o outcome) seeing(hosts ...*testbed.Host) outcome {
	o.from = hosts
	o.text += fmt.Sprintf(" as %v", hosts)
	return o
}

// expect sends requests from the client to the frontend, in each family, and reports what is not as wanted.
func (r *row) expect(client *testbed.Host, f frontend, want outcome) {
	r.Helper()
	if len(f.at) == 0 {
		r.Fatalf("Service has no frontend %s", f.name)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(f.at))
	for i, dst := range f.at {
		wg.Go(func() { errs[i] = r.check(client, f.proto, dst, want) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			r.Errorf("%s to %s %s (%s): %v; want %s", client, f.proto, f.name, f.at[i], err, want.text)
		}
	}
}

// check returns an error unless requests end as wanted.
func (r *row) check(client *testbed.Host, proto testbed.Proto, dst netip.AddrPort, want outcome) error {
	if want.err != nil {
		return r.checkFails(client, proto, dst, want.err)
	}
	tally := testbed.Tally{}
	for tally.N < fewest || len(tally.Pods) < len(want.pods) && tally.N < most {
		a, err := client.Ask(r.Context(), proto, dst)
		if err != nil {
			return fmt.Errorf("request %d: %s", tally.N+1, word(err))
		}
		tally.Add(a, nil)
		if !slices.ContainsFunc(want.pods, func(p *testbed.Host) bool { return p.Name == a.Pod }) {
			return fmt.Errorf("answered by %s", a.Pod)
		}
		if len(want.from) > 0 && !slices.ContainsFunc(want.from, func(h *testbed.Host) bool { return has(h, a.Peer.Addr()) }) {
			return fmt.Errorf("%s sees %s as its client", a.Pod, r.nameOf(a.Peer.Addr()))
		}
	}
	if len(tally.Pods) < len(want.pods) {
		return fmt.Errorf("%d requests are answered by %v", tally.N, keys(tally.Pods))
	}
	return nil
}

func (r *row) checkFails(client *testbed.Host, proto testbed.Proto, dst netip.AddrPort, want error) error {
	timeout := patience
	if errors.Is(want, testbed.ErrTimeout) {
		timeout = dropTime
	}
	a, err := client.Ask(r.Context(), proto, dst, testbed.Timeout(timeout))
	switch {
	case err == nil:
		return fmt.Errorf("answered by %s", a.Pod)
	case errors.Is(err, want):
		return nil
	// A node's own datagram that a rule in OUTPUT stops, by refusing or dropping it, is an error of the socket.
	case client.Node == nil && proto == testbed.UDP && errors.Is(err, unix.EPERM):
		return nil
	default:
		return errors.New(word(err))
	}
}

// has tells whether the address is one of the host's.
func has(h *testbed.Host, a netip.Addr) bool {
	return a == h.Addr(a) || a == h.Gateway4 || a == h.Gateway6
}

// nameOf returns whose address it is.
func (c *cluster) nameOf(a netip.Addr) string {
	names := []string{"n1", "n2", "n3", "a1", "a2", "b1", "b2", "c1", "out"}
	for i := range c.spares {
		node, pod := spareNames(i + 1)
		names = append(names, node, pod)
	}
	for _, name := range names {
		if has(c.Host(name), a) {
			return name
		}
	}
	return a.String()
}

// word says in a word how a request failed.
func word(err error) string {
	for kind, text := range map[error]string{
		testbed.ErrRefused: "refused", testbed.ErrTimeout: "no answer", testbed.ErrUnreachable: "unreachable",
	} {
		if errors.Is(err, kind) {
			return text
		}
	}
	return strings.TrimSpace(err.Error())
}

func keys(m map[string]int) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
