//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// How much longer than its timeout an affinity may be remembered: by IPVS while it lists a connection of the client,
// which is for two minutes after a TCP connection is closed, or for its UDP timeout, and until its next look, of which
// there is one a minute.
const (
	closedTCP = 2 * time.Minute
	idleUDP   = 5 * time.Minute // IPVS's default
	nextLook  = time.Minute
)

// late is when a timer of the kernel has ended for certain: it may be late by an eighth of its time, since the longer one is,
// the coarser are the steps in which it is kept (kernel/time/timer.c).
func late(timer time.Duration) time.Duration { return timer + timer/8 }

// TestP20Affinity: a sticky client moves on with its next connection when its endpoint drains, and not before; and it
// is forgotten in time.
func TestP20Affinity(t *testing.T) {
	title := "5 minutes"
	if testing.Short() {
		title = "1 minute"
	}
	r := begin(t, "P20", "Session affinity: one endpoint, until it drains; a timeout of 5 s ends, at most 3 minutes late "+
		"(UDP: "+title+" and 1), or an eighth more; a changed timeout loses nothing under load; UDP too")
	s := r.service("p20", affinity(600), over(testbed.TCP, testbed.UDP))
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		s.endpoints(ready(r.A1), ready(r.B1))
		r.settle()
		f := s.overProto(proto).C()
		first := r.sticky(f)
		r.changeTimeout(s, f, first)
		for i, pod := range first {
			leaving, staying := r.A1, r.B1
			if pod == r.B1.Name {
				leaving, staying = r.B1, r.A1
			}
			s.endpoints(terminating(leaving), ready(staying))
			r.settle()
			one := f
			one.at = f.at[i : i+1]
			r.expect(r.A2, one, answeredBy(staying))
			s.endpoints(ready(r.A1), ready(r.B1))
			r.settle()
		}
	}
	r.affinityEnds()
}

// sticky returns which endpoint answers all of a2's requests at each address.
func (r *row) sticky(f frontend) []string {
	r.Helper()
	var out []string
	for _, dst := range f.at {
		tally := r.A2.AskMany(r.Context(), 2*fewest, f.proto, dst)
		if len(tally.Pods) != 1 || len(tally.Errors) > 0 {
			r.Fatalf("%s: %d requests were answered by %v, errors %v", dst, tally.N, tally.Pods, tally.Errors)
		}
		out = append(out, keys(tally.Pods)...)
	}
	return out
}

// changeTimeout changes the timeout while the client asks without pause: each answer must come, and from the same
// endpoint, and the kernel knows the new one.
func (r *row) changeTimeout(s *service, f frontend, pods []string) {
	r.Helper()
	load := startProbes(r)
	for i, dst := range f.at {
		load.add(fmt.Sprintf("%s with affinity at %s", f.proto, dst), func(ctx context.Context) error {
			a, err := r.A2.Ask(ctx, f.proto, dst)
			if err == nil && a.Pod != pods[i] {
				err = fmt.Errorf("answered by %s, and by %s before", a.Pod, pods[i])
			}
			return err
		})
	}
	load.goOn(fewest)
	for _, seconds := range []int32{30, 700} {
		s.update(func(s *corev1.Service) { s.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds = &seconds })
		r.settle()
		load.goOn(fewest)
		if r.subject.ipvs {
			r.wantPersistence(f, seconds)
		}
	}
	for _, err := range load.stop() {
		r.Errorf("while the timeout changes: %v", err)
	}
}

// wantPersistence reports virtual servers of n1 that have another timeout.
func (r *row) wantPersistence(f frontend, seconds int32) {
	r.Helper()
	out, err := r.N1.Command(r.Context(), "ipvsadm", "-S", "-n").Output()
	r.must(err)
	for _, dst := range f.at {
		want := fmt.Sprintf("-A %s %s -s rr -p %d", map[testbed.Proto]string{testbed.TCP: "-t", testbed.UDP: "-u"}[f.proto], dst, seconds)
		if !strings.Contains(string(out), want) {
			r.Errorf("no %q in the kernel", want)
		}
	}
}

// affinityEnds: after a pause, clients are sent to any endpoint again. Instead of ten rounds with as many pauses there are
// ten Services: a proxy that forgets, and chooses by chance, chooses the same endpoint for all ten once in a thousand times.
func (r *row) affinityEnds() {
	r.Helper()
	udp := idleUDP
	if testing.Short() {
		udp = time.Minute
		if r.subject.ipvs {
			r.keepTimeouts(r.N1)
			r.restart(r.N1, "--ipvs-udp-timeout=1m")
		}
	}
	const rounds, timeout = 10, 5
	var fronts []frontend
	for i := range rounds {
		s := r.service(fmt.Sprintf("p20-%d", i), clusterIPOnly, affinity(timeout), over(testbed.TCP, testbed.UDP))
		s.endpoints(ready(r.A1), ready(r.B1))
		fronts = append(fronts, s.overProto(testbed.TCP).C(), s.overProto(testbed.UDP).C())
	}
	r.settle()
	before := r.askOnce(fronts)
	r.idle(late(timeout*time.Second) + late(max(closedTCP, udp)) + late(nextLook))
	after := r.askOnce(fronts)
	moved := map[string]int{}
	for dst, pod := range before {
		kind := dst[:strings.LastIndex(dst, " ")]
		moved[kind] += 0
		if after[dst] != pod {
			moved[kind]++
		}
	}
	r.Logf("of %d Services each, answered by another endpoint after the pause: %v", rounds, moved)
	for kind, n := range moved {
		if n == 0 {
			r.Errorf("%s: after the timeout, and as long as it may take beyond, all of %d clients are sent where they were before", kind, rounds)
		}
	}
}

// askOnce asks each address once, side by side, and returns who answers, by protocol, family and address.
func (r *row) askOnce(fronts []frontend) map[string]string {
	r.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	out := map[string]string{}
	for _, f := range fronts {
		for _, dst := range f.at {
			wg.Go(func() {
				a, err := r.A2.Ask(r.Context(), f.proto, dst)
				if err != nil {
					r.Errorf("%s to %s: %s", f.proto, dst, word(err))
				}
				family := "IPv6"
				if dst.Addr().Is4() {
					family = "IPv4"
				}
				mu.Lock()
				defer mu.Unlock()
				out[fmt.Sprintf("%s %s %s", f.proto, family, dst)] = a.Pod
			})
		}
	}
	wg.Wait()
	return out
}
