//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// startServices is how many Services a node finds at its start. A subject whose rounds are long does not come to the end of
// 200 of them in the time that rows wait.
func (r *row) startServices() int {
	switch {
	case r.subject.rounds != "":
		return 30
	case testing.Short():
		return 200
	default:
		return 5000
	}
}

// Ports of the pod behind the Services that are watched, so that its packets tell which one they are for.
const (
	portBalanced = 8081
	portCluster  = 8082
	portRanged   = 8083
)

func TestP43Start(t *testing.T) {
	r := begin(t, "P43", "At a start no frontend takes traffic before the rules that it needs: unserved, then right, never half-right")
	r.alone()
	r.many("p43", r.startServices(), r.B1, func(int, *corev1.Service) {})
	balanced := r.service("p43-balanced", target(portBalanced))
	cluster := r.service("p43-cluster", target(portCluster), clusterIPOnly)
	ranged := r.service("p43-ranged", target(portRanged), sourceRanges("192.0.2.0/24", "2001:db8::/32"))
	for i, s := range []*service{balanced, cluster, ranged} {
		s.endpoints(ready(r.B1))
		_, err := r.B1.Serve(r.Context(), testbed.TCP, uint16(portBalanced+i))
		r.must(err)
	}
	n := r.spare()
	for _, f := range []frontend{balanced.V(), ranged.V()} {
		for _, dst := range f.at {
			r.must(r.Out.RouteVia(netip.PrefixFrom(dst.Addr(), dst.Addr().BitLen()), n.Host))
		}
	}
	wrong := r.watchStart(n)
	probes := startProbes(r)
	probes.add("node to the kubernetes Service", func(ctx context.Context) error { return r.reachAPI(ctx, n) })
	for _, dst := range cluster.C().at {
		probes.ask(n.Host, dst)
	}
	for _, dst := range balanced.V().at {
		probes.ask(n.pod, dst)
		probes.ask(r.Out, dst)
	}
	for _, dst := range ranged.V().at {
		for _, client := range []*testbed.Host{n.pod, r.Out} {
			probes.background(client, dst)
		}
	}
	n.start()
	r.settle()
	probes.goOn(20)
	for _, err := range probes.stop() {
		r.Errorf("%v", err)
	}
	wrong.report()
}

// startWatch is what the pod behind the watched Services sees that is half-right.
type startWatch struct {
	row     *row
	sniffer *testbed.Sniffer
	seen    map[string]int // by what is wrong
}

// watchStart watches for clients that are not masqueraded, and for those that the ranges exclude.
func (r *row) watchStart(n *spare) *startWatch {
	r.Helper()
	w := &startWatch{row: r, seen: map[string]int{}}
	var err error
	w.sniffer, err = r.B1.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool {
		what := ""
		switch port := p.Dst.Port(); {
		case p.Outgoing:
		case port == portRanged:
			what = "let through in spite of the ranges"
		case (port == portBalanced || port == portCluster) && !has(n.Host, p.Src.Addr()):
			what = "not masqueraded"
		}
		if what != "" {
			w.seen[fmt.Sprintf("%s to port %d, %s", r.nameOf(p.Src.Addr()), p.Dst.Port(), what)]++
		}
		return what != ""
	})
	r.must(err)
	return w
}

func (w *startWatch) report() {
	w.row.Helper()
	if n, err := w.sniffer.Count(); n > 0 || err != nil {
		w.row.Errorf("packets at the pod: %v (%v)", w.seen, err)
	}
}

// reachAPI connects to the API server's Service.
func (r *row) reachAPI(ctx context.Context, n *spare) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	first := testbed.ServiceRanges()[0].Addr().Next()
	conn, err := n.DialContext(ctx, "tcp", netip.AddrPortFrom(first, 443).String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// probes ask without pause. Each may fail until it succeeds for the first time, and never after.
type probes struct {
	row    *row
	ctx    context.Context
	cancel context.CancelFunc
	begin  time.Time
	wg     sync.WaitGroup

	mu      sync.Mutex
	answers map[string]int
	errs    []error
}

func startProbes(r *row) *probes {
	p := &probes{row: r, begin: time.Now(), answers: map[string]int{}}
	p.ctx, p.cancel = context.WithCancel(r.Context())
	r.Cleanup(func() { p.stop() })
	return p
}

// ask asks a frontend. While it is not served a request may begin before it and be answered after the SYN is sent again.
func (p *probes) ask(client *testbed.Host, dst netip.AddrPort) {
	what := fmt.Sprintf("%s to %s", client, dst)
	p.add(what, func(ctx context.Context) error {
		_, err := client.Ask(ctx, testbed.TCP, dst, testbed.Timeout(patience))
		return err
	})
}

// background asks and does not care for what comes back.
func (p *probes) background(client *testbed.Host, dst netip.AddrPort) {
	p.repeat(func() { _, _ = client.Ask(p.ctx, testbed.TCP, dst, testbed.Timeout(300*time.Millisecond)) })
}

func (p *probes) add(what string, try func(context.Context) error) {
	p.answers[what] = 0
	p.repeat(func() { p.note(what, try(p.ctx)) })
}

func (p *probes) repeat(fn func()) {
	p.wg.Go(func() {
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		for p.ctx.Err() == nil {
			fn()
			<-again.C
		}
	})
}

func (p *probes) note(what string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		if p.answers[what]++; p.answers[what] == 1 {
			p.row.Logf("%s: first answer after %.1f s", what, time.Since(p.begin).Seconds())
		}
	case p.ctx.Err() == nil && p.answers[what] > 0:
		p.errs = append(p.errs, fmt.Errorf("%s: after %d answers: %s", what, p.answers[what], word(err)))
	}
}

// goOn waits until each probe has had n more answers.
func (p *probes) goOn(n int) {
	p.row.Helper()
	p.mu.Lock()
	want := map[string]int{}
	for what, got := range p.answers {
		want[what] = got + n
	}
	p.mu.Unlock()
	p.row.until("probes", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for what, least := range want {
			if p.answers[what] < least {
				return fmt.Errorf("%s: %d answers", what, p.answers[what])
			}
		}
		return nil
	})
}

// stop ends the probes and returns what went wrong. Stopping twice is harmless.
func (p *probes) stop() []error {
	p.cancel()
	p.wg.Wait()
	return p.errs
}
