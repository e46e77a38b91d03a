//go:build e2e && linux

package suite

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
)

// dump returns the node's IPVS state.
func (n *node) dump(t *testing.T) ipvs.State {
	t.Helper()
	s, err := n.table.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// virtual returns a virtual server of the node, which must be there.
func (n *node) virtual(t *testing.T, proto testbed.Proto, addr netip.AddrPort) ipvs.VirtualServer {
	t.Helper()
	v, ok := n.dump(t).Virtual[keyOf(proto, addr)]
	if !ok {
		t.Fatalf("no virtual server %s %s on %s", proto, addr, n)
	}
	return v
}

// weights returns the real servers of a virtual server as "address:port" with their weights; nil if there is no such
// virtual server.
func (n *node) weights(t *testing.T, proto testbed.Proto, addr netip.AddrPort) map[string]int {
	t.Helper()
	v, ok := n.dump(t).Virtual[keyOf(proto, addr)]
	if !ok {
		return nil
	}
	out := map[string]int{}
	for _, r := range v.Real {
		out[r.Dest.String()] = r.Weight
	}
	return out
}

// endpoint prints a pod's address with a port, as weights does.
func endpoint(pod *testbed.Host, like netip.AddrPort, port int) string {
	return netip.AddrPortFrom(pod.Addr(like.Addr()), uint16(port)).String()
}

// sameMap reports an error unless both maps are equal.
func sameMap[K, V comparable](got, want map[K]V) error {
	if len(got) == len(want) && (got == nil) == (want == nil) {
		same := true
		for k, v := range want {
			g, ok := got[k]
			same = same && ok && g == v
		}
		if same {
			return nil
		}
	}
	return fmt.Errorf("got %v, want %v", got, want)
}
