package render

import (
	"slices"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
)

// TestRetriedFrontendBringsItsGuards: a frontend that is retried by itself is not programmed without what guards its
// address, even if that is due at another time.
func TestRetriedFrontendBringsItsGuards(t *testing.T) {
	m := NewModel(testFacts, testConfig)
	c := newCluster(1)
	s := c.service(lb.Name{Namespace: "default", Name: "web"})
	touched := m.Update(s.Name, s, nil, true)
	plan := Diff(m, NewState(), Touched{Keys: touched.Keys}).String()
	for _, k := range touched.Keys {
		f, _ := m.Frontend(k)
		for _, p := range m.bindings(k.Addr) {
			guard := prefixMember(p, setClusterIP)
			if p.IsSingleIP() {
				guard = prefixMember(p, setVIP)
			}
			if text := "set " + guard.op(false).String(); f.VIP && !strings.Contains(plan, text) {
				t.Errorf("the plan for %s lacks %q:\n%s", k, text, plan)
			}
		}
	}
}

// TestLargePlanOutgrowsItsRoom: room is reserved for what a first sync plans; a plan with more than that is the plans for
// the single frontends together all the same.
func TestLargePlanOutgrowsItsRoom(t *testing.T) {
	services, slicesOf := clusterOf(20)
	m := NewModel(testFacts, testConfig)
	for i, s := range services {
		m.Update(s.Name, s, slicesOf[i], true)
	}
	st := Desired(m)
	keys := sortedMapKeys(st.IPVS.Virtual, ipvs.Key.Compare)
	var want Plan
	for _, k := range keys {
		v := st.IPVS.Virtual[k]
		v.Real = slices.Clone(v.Real)
		for i := range v.Real {
			v.Real[i].Weight = 7
		}
		st.IPVS.Virtual[k] = v
		want = append(want, Diff(m, st, Touched{Keys: []ipvs.Key{k}})...)
	}
	if got := Diff(m, st, Touched{Keys: keys}); len(got) != 200 || got.String() != want.String() {
		t.Errorf("%d operations, want 200:\n%s\nwant\n%s", len(got), got, want)
	}
}
