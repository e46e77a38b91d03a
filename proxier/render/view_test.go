package render

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// rivals returns two Services with policy Local, in order, whose views want the same mark.
func rivals(t *testing.T) (a, b lb.Service) {
	t.Helper()
	seen := map[uint32]lb.Name{}
	for i := range 1 << markBits {
		n := lb.Name{Namespace: "default", Name: fmt.Sprintf("svc-%d", i)}
		h := ViewID{Service: n, Proto: lb.TCP}.hash() % (1 << markBits)
		if other, ok := seen[h]; ok {
			if n.Compare(other) < 0 {
				n, other = other, n
			}
			return localService(other, 1), localService(n, 2)
		}
		seen[h] = n
	}
	t.Fatal("no two names have the same hash")
	return
}

func localService(n lb.Name, number byte) lb.Service {
	return lb.Service{
		Name: n, ExternalLocal: true, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, number})},
		ExternalIPs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, number})},
		Ports:       []lb.ServicePort{{Proto: lb.TCP, Port: 80}},
	}
}

// TestMarksSurvive: of two views that want one mark each gets its own, and keeps it over a restart in which they come
// in another order, and over a change of the node's facts.
func TestMarksSurvive(t *testing.T) {
	a, b := rivals(t)
	update := func(m *Model, services ...lb.Service) *Model {
		for _, s := range services {
			m.Update(s.Name, s, nil, true)
		}
		return m
	}
	st := Desired(update(NewModel(testFacts, testConfig), b, a))
	if len(st.inside) != 2 {
		t.Fatalf("marks: %v, want two", st.inside)
	}
	restarted := update(NewModel(testFacts, testConfig), a, b)
	if len(Diff(restarted, st, restarted.Everything(st))) == 0 {
		t.Fatal("without adoption the marks are the same; the test is void")
	}
	restarted.Adopt(st)
	if p := Diff(restarted, st, restarted.Everything(st)); len(p) > 0 {
		t.Errorf("after a restart:\n%s", p)
	}
	renewed := update(restarted.Renew(testFacts), a, b)
	if p := Diff(renewed, st, renewed.Everything(st)); len(p) > 0 {
		t.Errorf("after a change of facts:\n%s", p)
	}
}

// TestMarkMovesWithFrontend: a frontend that goes to another Service leads to the other's view, and never to none that
// is there.
func TestMarkMovesWithFrontend(t *testing.T) {
	older, younger := localService(lb.Name{Namespace: "default", Name: "older"}, 1), localService(lb.Name{Namespace: "default", Name: "younger"}, 2)
	older.Created, younger.Created = 1, 2
	shared := netip.MustParseAddr("203.0.113.1")
	older.LoadBalancerIPs, younger.LoadBalancerIPs = []netip.Addr{shared}, []netip.Addr{shared}
	m := NewModel(testFacts, testConfig)
	st := NewState()
	apply := func(touched Touched) {
		for _, op := range Diff(m, st, touched) {
			st.Record(op)
			checkSafe(t, st, op)
			checkViews(t, m, st, op)
		}
	}
	leads := func(to lb.Name) {
		t.Helper()
		view, ok := m.viewOf(ipvs.Key{Addr: shared, Port: 80, Proto: ipvs.TCP})
		f, _ := m.Frontend(view)
		if _, led := st.inside[view][ipvs.Key{Addr: shared, Port: 80, Proto: ipvs.TCP}]; !ok || !led || f.Service != to {
			t.Errorf("%s leads to %s of %s, want %s", shared, view, f.Service, to)
		}
	}
	apply(m.Update(younger.Name, younger, nil, true))
	leads(younger.Name)
	was, _ := m.viewOf(ipvs.Key{Addr: shared, Port: 80, Proto: ipvs.TCP})
	m.Update(older.Name, older, nil, true)
	apply(Touched{Keys: []ipvs.Key{was}}) // a retry of the view that loses the frontend, before the change was planned
	leads(older.Name)
	apply(m.Everything(st))
	apply(m.Update(older.Name, lb.Service{}, nil, false))
	leads(younger.Name)
	if p := Diff(m, st, m.Everything(st)); len(p) > 0 {
		t.Errorf("still to do:\n%s", p)
	}
}
