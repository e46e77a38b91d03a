//go:build e2e && linux

package parity

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

const (
	annotationScheduler = "kube-hop.io/ipvs-scheduler"
	annotationFlags     = "kube-hop.io/ipvs-scheduler-flags"
	annotationWeights   = "kube-hop.io/weights"
)

// manyClients gives the outside machine further addresses until the end of the row.
func (r *row) manyClients(n int) (out []netip.Addr) {
	r.Helper()
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{192, 168, 50, byte(130 + i)}))
	}
	each := func(do func(netlink.Link, *netlink.Addr) error) error {
		return r.Out.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			for i := 0; i < n && err == nil; i++ {
				err = do(link, &netlink.Addr{IPNet: netlink.NewIPNet(out[i].AsSlice())})
			}
			return err
		})
	}
	r.must(each(netlink.AddrAdd))
	r.Cleanup(func() {
		if err := each(netlink.AddrDel); err != nil {
			r.Errorf("%v", err)
		}
	})
	return out
}

// annotate sets annotations of a stored Service, in place of those it has.
func (s *service) annotate(kv ...string) {
	s.row.Helper()
	s.update(func(svc *corev1.Service) {
		svc.Annotations = nil
		for i := 0; i < len(kv); i += 2 {
			metav1.SetMetaDataAnnotation(&svc.ObjectMeta, kv[i], kv[i+1])
		}
	})
}

// onlyIPVS ends a row that is about schedulers on a subject without.
func (r *row) onlyIPVS() {
	r.Helper()
	if !r.subject.ipvs {
		r.notApplicable("no schedulers without IPVS")
	}
}

// TestP22DrainWithEveryScheduler: while one of three endpoints drains, every client is served.
func TestP22DrainWithEveryScheduler(t *testing.T) {
	r := begin(t, "P22", "While one of three endpoints drains, every client is served, with each scheduler")
	r.onlyIPVS()
	clients := r.manyClients(48)
	for _, scheduler := range []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "sed", "nq", "lblc", "lblcr"} {
		if !r.subject.kubeHop() { // one scheduler for all Services, by flag
			r.restart(r.N1, "--ipvs-scheduler="+scheduler)
		}
		s := r.service("p22-"+scheduler, annotated(annotationScheduler, scheduler))
		pods := []*testbed.Host{r.A1, r.A2, r.B1}
		s.endpoints(ready(pods[0]), ready(pods[1]), ready(pods[2]))
		r.settle()
		dst := s.V().at[0]
		held, err := r.Out.Dial(r.Context(), testbed.TCP, dst)
		r.must(err)
		var states []endpoint
		for _, p := range pods {
			if p.Name == held.Answer.Pod {
				states = append(states, terminating(p))
			} else {
				states = append(states, ready(p))
			}
		}
		s.endpoints(states...)
		r.settle()
		lost := 0
		for _, c := range clients {
			a, err := r.Out.Ask(r.Context(), testbed.TCP, dst, testbed.From(netip.AddrPortFrom(c, 0)))
			if err != nil || a.Pod == held.Answer.Pod {
				lost++
			}
		}
		if lost > 0 {
			r.Errorf("%s: %d of %d clients were not served by an endpoint that stays", scheduler, lost, len(clients))
		}
		if err := held.Ping(); err != nil {
			r.Errorf("%s: connection to the endpoint that drains: %v", scheduler, err)
		}
		_ = held.Close()
		s.delete()
	}
}

// TestP57SchedulerByService: a Service chooses its scheduler, and a bad choice costs nothing.
func TestP57SchedulerByService(t *testing.T) {
	r := begin(t, "P57", "A Service chooses its scheduler; changing it keeps connections; a wrong one gives an event and the default")
	s := r.service("p57", annotated(annotationScheduler, "sh"))
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	tally := r.A2.AskMany(r.Context(), 20, testbed.TCP, s.C().at[0])
	if len(tally.Errors) > 0 || len(tally.Pods) != 1 {
		r.Errorf("source hashing of one client: answered by %v, %d errors; want one pod", tally.Pods, len(tally.Errors))
	}
	held, err := r.A2.Dial(r.Context(), testbed.TCP, s.C().at[0])
	r.must(err)
	defer held.Close()
	s.annotate(annotationScheduler, "rr")
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1, r.B1))
	if err := held.Ping(); err != nil {
		r.Errorf("connection made before the scheduler changed: %v", err)
	}
	s.annotate(annotationScheduler, "nonsense")
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1, r.B1))
	r.expectEvent(s, "nonsense")
}

// expectEvent waits for an event on a Service whose text contains some text.
func (r *row) expectEvent(s *service, text string) {
	r.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		list, err := r.client.EventsV1().Events(namespace).List(r.Context(), metav1.ListOptions{})
		r.must(err)
		for _, e := range list.Items {
			if e.Regarding.Kind == "Service" && e.Regarding.Name == s.Name && strings.Contains(e.Note, text) {
				return
			}
		}
		if time.Now().After(deadline) {
			r.Errorf("no event on Service %s says %q", s.Name, text)
			return
		}
	}
}

// TestP58Weights: weighted endpoints get connections by their weights.
func TestP58Weights(t *testing.T) {
	r := begin(t, "P58", "Weights by annotation hold, change in place, survive draining, and never take a Service out of service")
	s := r.service("p58", annotated(annotationScheduler, "wrr"), func(svc *corev1.Service) {
		metav1.SetMetaDataAnnotation(&svc.ObjectMeta, annotationWeights, "local:3, default:1")
	})
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	ratio := func(what string, want int) {
		r.Helper()
		tally := r.A2.AskMany(r.Context(), 200, testbed.TCP, s.C().at[0])
		if got := tally.Pods["a1"]; len(tally.Errors) > 0 || got < want-10 || got > want+10 {
			r.Errorf("%s: a1 gets %d of 200 connections, %d errors; want about %d", what, got, len(tally.Errors), want)
		}
	}
	ratio("3:1", 150)
	s.endpoints(terminating(r.A1), ready(r.B1))
	r.settle()
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	ratio("after draining", 150)
	s.annotate(annotationScheduler, "wrr", annotationWeights, "default:1")
	r.settle()
	ratio("1:1", 100)
	s.annotate(annotationScheduler, "wrr", annotationWeights, "default:0")
	r.settle()
	ratio("0:0", 100)
	r.expectEvent(s, "weight")
}

// TestP59OnePacket: every datagram of one client port is a decision of its own, and is answered by the Service's address.
func TestP59OnePacket(t *testing.T) {
	r := begin(t, "P59", "One-packet scheduling: datagrams from one client port reach all endpoints, and the Service answers")
	s := r.service("p59", over(testbed.UDP), annotated(annotationFlags, "ops"))
	s.endpoints(ready(r.A1), ready(r.B1), ready(r.B2))
	tcp := r.service("p59-tcp", annotated(annotationFlags, "ops"))
	tcp.endpoints(ready(r.A1))
	r.settle()
	for _, f := range []frontend{s.C(), s.V(), s.N(r.N1)} {
		stream, err := r.A2.Dial(r.Context(), testbed.UDP, f.at[0], testbed.Timeout(dropTime))
		if err != nil {
			r.Errorf("%s: %s", f.name, word(err))
			continue
		}
		pods := map[string]bool{stream.Answer.Pod: true}
		_ = stream.Close()
		for range 40 {
			a, err := r.A2.Ask(r.Context(), testbed.UDP, f.at[0], testbed.FromPort(stream.Local().Port()), testbed.Timeout(dropTime))
			if err != nil {
				r.Errorf("%s: %s", f.name, word(err))
				break
			}
			pods[a.Pod] = true
		}
		if len(pods) < 3 {
			r.Errorf("%s: 40 datagrams of one port were answered by %d of 3 endpoints", f.name, len(pods))
		}
	}
	r.expect(r.A2, tcp.C(), answeredBy(r.A1))
	r.expectEvent(tcp, "ops")
}
