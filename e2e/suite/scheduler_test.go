//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

const (
	flagsAnnotation   = "kube-hop.io/ipvs-scheduler-flags"
	weightsAnnotation = "kube-hop.io/weights"
)

// annotate replaces the Service's annotations.
func (m *manifest) annotate(kv ...string) *manifest {
	m.Annotations = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m.Annotations[kv[i]] = kv[i+1]
	}
	return m
}

// TestScheduler is P57: a Service gets the scheduler and the flags that its annotations name, and the daemon's
// otherwise. A value that cannot be used is told, and costs nothing.
func TestScheduler(t *testing.T) {
	c := shared(t)
	m := newService("scheduler", 50, c.A2, c.B2)
	log := c.nodes[0].logSince(t)
	for _, row := range []struct {
		scheduler, flags string
		want             ipvs.Config
	}{
		{"", "", ipvs.Config{Scheduler: "rr"}},
		{"wrr", "", ipvs.Config{Scheduler: "wrr"}},
		{"lc", "", ipvs.Config{Scheduler: "lc"}},
		{"sh", "", ipvs.Config{Scheduler: "sh", Flags: ipvs.FlagSched1}},
		{"sh", "sh-port", ipvs.Config{Scheduler: "sh", Flags: ipvs.FlagSched1 | ipvs.FlagSched2}},
		{"mh", "", ipvs.Config{Scheduler: "mh", Flags: ipvs.FlagSched1 | ipvs.FlagSched2}},
		{"mh", "mh-fallback", ipvs.Config{Scheduler: "mh", Flags: ipvs.FlagSched1}},
		{"nonsense", "", ipvs.Config{Scheduler: "rr"}},
		{"dh", "", ipvs.Config{Scheduler: "rr"}},
		{"", "ops", ipvs.Config{Scheduler: "rr"}}, // the Service has TCP ports
	} {
		t.Run(fmt.Sprintf("annotations %s %s", row.scheduler, row.flags), func(t *testing.T) {
			m.annotate()
			if row.scheduler != "" {
				m.Annotations[schedulerAnnotation] = row.scheduler
			}
			if row.flags != "" {
				m.Annotations[flagsAnnotation] = row.flags
			}
			c.apply(t, m)
			state := c.nodes[0].dump(t)
			for _, proto := range protos {
				for _, f := range m.frontends(c.N1) {
					if got := state.Virtual[f.key(proto)].Config; got != row.want {
						t.Errorf("%s %s has %s, want %s", proto, f, got, row.want)
					}
				}
			}
			for _, f := range m.frontends(c.N1) {
				if _, err := c.A1.Ask(t.Context(), testbed.TCP, f.addr); err != nil {
					t.Error(err)
				}
			}
		})
	}
	awaitLog(t, log, "default/scheduler", "nonsense", "cannot be used")
	awaitLog(t, log, "default/scheduler", "is for Services that have only UDP ports")
	t.Run("flag", func(t *testing.T) {
		c := quick(t)
		m := newService("scheduler", 50, c.A1)
		c.apply(t, m)
		for _, f := range m.frontends(c.N1) {
			if got := c.nodes[0].virtual(t, testbed.TCP, f.addr).Scheduler; got != "wlc" {
				t.Errorf("%s has %s, want wlc", f, got)
			}
		}
	})
	t.Run("under load", func(t *testing.T) {
		c.apply(t, m.annotate())
		// Without care new connections are refused for the moment in which the kernel takes the old scheduler away and
		// waits for its users (synchronize_rcu in ip_vs_edit_service): 22 of about 1,300 were on Linux 6.12.
		load := c.startLoad(t, m)
		for _, s := range []string{"sh", "wrr", "mh", "lblc", "rr"} {
			c.apply(t, m.annotate(schedulerAnnotation, s))
			load.check(t, "after the change to "+s)
		}
		load.end(t)
	})
}

// manyAddresses gives the outside client more addresses, and takes them away with the test.
func (c *cluster) manyAddresses(t *testing.T, n int) []netip.Addr {
	t.Helper()
	var out []netip.Addr
	each := func(do func(netlink.Link, *netlink.Addr) error) error {
		return c.Out.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for _, a := range out {
				if err := do(link, &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice())}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{192, 168, 50, byte(130 + i)}))
	}
	if err := each(netlink.AddrAdd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := each(netlink.AddrDel); err != nil {
			t.Error(err)
		}
	})
	return out
}

// TestSchedulersDrain is P22: with every scheduler on offer all clients are served while one of three endpoints
// drains, and its connections go on.
func TestSchedulersDrain(t *testing.T) {
	c := shared(t)
	clients := c.manyAddresses(t, 64)
	for i, scheduler := range append(ipvs.Schedulers(), "dh") {
		t.Run(scheduler, func(t *testing.T) {
			m := newService("drain-"+scheduler, 90+i, c.A1, c.A2, c.B1).annotate(schedulerAnnotation, scheduler)
			m.Spec.Ports, m.Spec.ExternalIPs, m.Status.LoadBalancer.Ingress = m.Spec.Ports[:1], nil, nil
			c.apply(t, m)
			s, err := c.Out.Dial(t.Context(), testbed.TCP, m.at(4))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var stay []*testbed.Host
			for _, pod := range []*testbed.Host{c.A1, c.A2, c.B1} {
				if pod.Name != s.Answer.Pod {
					stay = append(stay, pod)
				}
			}
			c.apply(t, m.withPods(stay...))
			var wg sync.WaitGroup
			for _, chunk := range [][]netip.Addr{clients[:32], clients[32:]} {
				wg.Go(func() {
					for _, a := range chunk {
						got, err := c.Out.Ask(t.Context(), testbed.TCP, m.at(4), testbed.From(netip.AddrPortFrom(a, 0)))
						if err != nil || got.Pod == s.Answer.Pod {
							t.Errorf("client %s while %s drains: answered by %q, %v", a, s.Answer.Pod, got.Pod, err)
						}
					}
				})
			}
			wg.Wait()
			if err := s.Ping(); err != nil {
				t.Errorf("connection to %s, which drains: %v", s.Answer.Pod, err)
			}
		})
	}
}

// TestWeights is P58: endpoints get connections by their weights, which are changed in place.
func TestWeights(t *testing.T) {
	c := shared(t)
	m := newService("weights", 51, c.A2, c.B2).annotate(schedulerAnnotation, "wrr", weightsAnnotation, "local:3, default:1")
	c.apply(t, m)
	n1 := c.nodes[0]
	weights := func(a2, b2 int) {
		t.Helper()
		want := map[string]int{endpoint(c.A2, m.at(4), podPort): a2, endpoint(c.B2, m.at(4), podPort): b2}
		if err := sameMap(n1.weights(t, testbed.TCP, m.at(4)), want); err != nil {
			t.Error("weights: ", err)
		}
	}
	weights(3, 1)
	tally := c.A1.AskMany(t.Context(), 200, testbed.TCP, m.at(4))
	if len(tally.Errors) > 0 || tally.Pods["a2"] < 145 || tally.Pods["a2"] > 155 {
		t.Errorf("%v, %d errors; want 150 of a2 and 50 of b2", tally.Pods, len(tally.Errors))
	}
	load := c.startLoad(t, m)
	c.apply(t, m.annotate(schedulerAnnotation, "wrr", weightsAnnotation, "default:1"))
	weights(1, 1)
	c.apply(t, m.annotate(schedulerAnnotation, "wrr", weightsAnnotation, "local:3, default:1"))
	load.end(t)

	s := c.hold(t, testbed.TCP, frontend{kind: clusterIP, addr: m.at(4)}, "a2")
	c.apply(t, m.withPods(c.B2))
	weights(0, 1)
	c.apply(t, m.withPods(c.A2, c.B2))
	weights(3, 1)
	if err := errors.Join(s.stream.Ping(), s.stream.Close()); err != nil {
		t.Error("held connection: ", err)
	}

	log := n1.logSince(t)
	c.apply(t, m.annotate(weightsAnnotation, "default:0"))
	awaitLog(t, log, "default/weights", "all get the same")
	weights(1, 1)
	if err := c.everyoneIsServed(t, m); err != nil {
		t.Error(err)
	}
}

// TestOnePacket is P59: each datagram of a client that keeps its port is scheduled on its own, and whoever answers it, the
// client gets the answer from where it asked, also while it asks at several frontends by turns, and whatever the node thinks
// of packets with sources that it would not send to by the same way (rp_filter).
func TestOnePacket(t *testing.T) {
	c := shared(t)
	m := onePacketService("ops", 52, c.A2, c.B2)
	other := onePacketService("ops-other", 53, c.A2, c.B2)
	c.apply(t, m, other)
	n1 := c.nodes[0]
	for _, rpFilter := range []string{"0", "1"} {
		n1.setSysctl(t, "net/ipv4/conf/all/rp_filter", rpFilter)
		for _, cl := range c.clients() {
			t.Run(fmt.Sprintf("%s rp_filter %s", cl.host, rpFilter), func(t *testing.T) {
				c.onePacketIsAnswered(t, cl, append(m.frontends(cl.via), other.frontends(cl.via)...))
			})
		}
	}
	n1.setSysctl(t, "net/ipv4/conf/all/rp_filter", "0")
	left := n1.run(t, "ipvsadm", "-Lnc")
	for _, f := range append(m.frontends(c.N1), other.frontends(c.N1)...) {
		if strings.Contains(left, f.addr.String()+" ") {
			t.Errorf("IPVS keeps connections to %s:\n%s", f, left)
		}
	}
}

// onePacketService returns a Service with UDP alone, and one-packet scheduling.
func onePacketService(name string, number int, pods ...*testbed.Host) *manifest {
	m := newService(name, number, pods...).annotate(flagsAnnotation, "ops")
	m.Spec.Ports = m.Spec.Ports[1:2]
	return m
}

// onePacketIsAnswered asks at the frontends by turns, from one port. Each has to reach every pod. While frontends are new, flows
// to them that may be older are deleted from connection tracking, within a second; an answer on its way at that moment is
// lost, and then all begins again.
func (c *cluster) onePacketIsAnswered(t *testing.T, cl client, frontends []frontend) {
	deleted := func() (sum float64) {
		for _, n := range c.nodes {
			sum += n.metric(t, "kubeproxy_conntrack_reconciler_deleted_entries_total")
		}
		return sum
	}
	for {
		before := deleted()
		reached, err := c.askByTurns(t, cl, frontends)
		if err != nil && deleted() != before {
			t.Logf("flows were deleted meanwhile; again, after: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frontends {
			if err := sameMap(reached[f], map[string]int{"a2": askRounds / 2, "b2": askRounds / 2}); err != nil {
				t.Errorf("%s: answers by pod: %v", f, err)
			}
		}
		return
	}
}

// askRounds is how often one client asks at each frontend.
const askRounds = 6

// askByTurns asks at the frontends by turns, from one port, and returns how often each pod answered. It ends with the first
// request that is not answered.
func (c *cluster) askByTurns(t *testing.T, cl client, frontends []frontend) (map[frontend]map[string]int, error) {
	port := freePort()
	reached := map[frontend]map[string]int{}
	for range askRounds {
		for _, f := range frontends {
			a, err := cl.host.Ask(t.Context(), testbed.UDP, f.addr, testbed.FromPort(port))
			if err != nil {
				return nil, fmt.Errorf("%s, after %v: %w", f, reached, err)
			}
			if reached[f] == nil {
				reached[f] = map[string]int{}
			}
			reached[f][a.Pod]++
			want := cl.peers(f, c.Host(a.Pod))
			if want[0] == cl.via.Addr(f.addr.Addr()) { // masqueraded, as the same client for all pods
				want = []netip.Addr{cl.via.Gateway4, cl.via.Gateway6}
			}
			if !slices.Contains(want, a.Peer.Addr()) {
				t.Errorf("%s: %s saw %s as its client, want one of %v", f, a.Pod, a.Peer.Addr(), want)
			}
		}
	}
	return reached, nil
}
