//go:build e2e && linux

package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestSamePort (P31): from one client port two connections to one endpoint work at the same time, through two VIPs or
// through a VIP and directly, whichever was first.
func TestSamePort(t *testing.T) {
	c := shared(t)
	remote, other, local := newService("same-1", 80, c.B1), newService("same-2", 81, c.B1), newService("same-3", 82, c.A2)
	c.apply(t, remote, other, local)
	port := uint16(40000)
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		for _, family := range []int{4, 6} {
			direct := func(pod *testbed.Host) netip.AddrPort {
				return netip.AddrPortFrom(pod.Addr(remote.addr(clusterIP, family)), podPort)
			}
			for _, tc := range []struct {
				name          string
				client        *testbed.Host
				first, second netip.AddrPort
			}{
				{"two VIPs", c.A1, remote.at(family), other.at(family)},
				{"VIP, then endpoint", c.A1, remote.at(family), direct(c.B1)},
				{"endpoint, then VIP", c.A1, direct(c.B1), remote.at(family)},
				{"VIP, then local endpoint", c.A1, local.at(family), direct(c.A2)},
				{"node to two VIPs", c.N1, remote.at(family), other.at(family)},
				{"node to VIP, then endpoint", c.N1, remote.at(family), direct(c.B1)},
				{"node to endpoint, then VIP", c.N1, direct(c.B1), remote.at(family)},
			} {
				port++
				t.Run(fmt.Sprintf("%s %d %s", proto, family, tc.name), func(t *testing.T) {
					exchangeBoth(t, tc.client, proto, port, tc.first, tc.second)
				})
			}
		}
	}
}

// exchangeBoth opens a connection to each of two addresses from one port, and uses both in turn.
func exchangeBoth(t *testing.T, from *testbed.Host, proto testbed.Proto, port uint16, to ...netip.AddrPort) {
	t.Helper()
	var streams []*testbed.Stream
	for _, addr := range to {
		s, err := from.Dial(t.Context(), proto, addr, testbed.FromPort(port))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		streams = append(streams, s)
	}
	for round := range 5 {
		var errs []error
		for _, s := range streams {
			errs = append(errs, s.Ping())
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// TestNodePortAsSource (P34): the node's own connections work with a source port that is the number of a node port.
func TestNodePortAsSource(t *testing.T) {
	c := shared(t)
	m := newService("source", 83, c.A2)
	c.apply(t, m)
	const (
		port = 7003
		asks = 4 // a client that takes its last port again waits a second for it
	)
	for _, proto := range protos {
		if _, err := c.N2.Serve(t.Context(), proto, port); err != nil {
			t.Fatal(err)
		}
		for _, family := range []int{4, 6} {
			like := m.addr(clusterIP, family)
			from := testbed.FromPort(uint16(m.nodePort()))
			t.Run(fmt.Sprintf("%s %d to another node", proto, family), func(t *testing.T) {
				s, err := c.N1.Dial(t.Context(), proto, netip.AddrPortFrom(c.N2.Addr(like), port), from)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if err := errors.Join(s.Ping(), s.Ping()); err != nil || s.Answer.Pod != "n2" {
					t.Errorf("answered by %q, %v; want n2", s.Answer.Pod, err)
				}
			})
			t.Run(fmt.Sprintf("%s %d to a Service", proto, family), func(t *testing.T) {
				tally := c.N1.AskMany(t.Context(), asks, proto, m.at(family), from)
				if err := tally.Err(); err != nil || tally.Pods["a2"] != asks {
					t.Errorf("answers by pod: %v, %v; want %d of a2", tally.Pods, err, asks)
				}
			})
		}
	}
}
