package render

import (
	"strings"
	"testing"

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
