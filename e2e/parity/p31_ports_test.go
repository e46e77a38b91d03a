//go:build e2e && linux

package parity

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP31SamePort: one client port reaches one endpoint through two VIPs at the same time, and through a VIP and
// directly.
func TestP31SamePort(t *testing.T) {
	r := begin(t, "P31", "Two VIPs, one endpoint, one source port: both connections work")
	one, two := r.service("p31-one", clusterIPOnly), r.service("p31-two", clusterIPOnly)
	for _, s := range []*service{one, two} {
		s.endpoints(ready(r.B1))
	}
	r.settle()
	port := uint16(40000)
	for i, vip := range one.C().at {
		direct := netip.AddrPortFrom(r.B1.Addr(vip.Addr()), podPort)
		for _, pair := range [][2]netip.AddrPort{{vip, two.C().at[i]}, {vip, direct}, {direct, vip}} {
			port++
			if err := exchangeBoth(r, r.A1, port, pair[0], pair[1]); err != nil {
				r.Errorf("port %d to %s, then to %s: %v", port, pair[0], pair[1], err)
			}
		}
	}
}

// exchangeBoth opens a connection to each address from one port and uses them in turn.
func exchangeBoth(r *row, from *testbed.Host, port uint16, to ...netip.AddrPort) error {
	var streams []*testbed.Stream
	for _, addr := range to {
		s, err := from.Dial(r.Context(), testbed.TCP, addr, testbed.FromPort(port))
		if err != nil {
			return err
		}
		defer s.Close()
		streams = append(streams, s)
	}
	for range 5 {
		var errs []error
		for _, s := range streams {
			errs = append(errs, s.Ping())
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// TestP34NodePortAsSource: the node's own connections work with a source port that is the number of a node port.
func TestP34NodePortAsSource(t *testing.T) {
	r := begin(t, "P34", "A node port does not hijack replies to the node's own connections")
	s := r.service("p34", over(testbed.TCP, testbed.UDP))
	s.endpoints(ready(r.A1))
	const port = 7034
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		_, err := r.N2.Serve(r.Context(), proto, port)
		r.must(err)
	}
	r.settle()
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		nodePort := s.overProto(proto).N(r.N1).at[0].Port()
		for _, to := range []netip.Addr{r.N2.Addr4, r.N2.Addr6} {
			a, err := r.N1.Ask(r.Context(), proto, netip.AddrPortFrom(to, port), testbed.FromPort(nodePort))
			if err != nil || a.Pod != r.N2.Name {
				r.Errorf("%s from port %d to %s: answered by %q, %v; want n2", proto, nodePort, to, a.Pod, err)
			}
		}
	}
}
