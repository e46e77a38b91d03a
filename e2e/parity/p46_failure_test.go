//go:build e2e && linux

package parity

import (
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

func TestP46OneFailure(t *testing.T) {
	r := begin(t, "P46", "A set that cannot be made stops nothing else, and is made when it can be")
	if !r.subject.ipvs {
		r.notApplicable("it uses no ipset")
	}
	plain := r.service("p46-plain")
	ranged := r.service("p46-ranged", sourceRanges("10.244.0.0/16", "fd24::/48"))
	for _, s := range []*service{plain, ranged} {
		s.endpoints(pods(r.A1, r.B1)...)
	}
	n := r.spare()
	// The subject itself says what its set of source ranges is called.
	n.start(r.subject.period("2s"))
	r.settle()
	name := strings.TrimSpace(n.do(`ipset list -t | awk '/^Name:/ {n=$2; t=""} /^Type: hash:ip,port,net$/ {t=n} /family inet / && t {print t; exit}'`))
	n.stop()
	_, _ = n.sh(r.subject.cleanup()) // P44 is about its errors
	n.do("ipset destroy " + name + " 2>/dev/null || true; ipset create " + name + " hash:mac")

	n.start(r.subject.period("2s"))
	served := func() error {
		for _, f := range []frontend{plain.C(), plain.V(), ranged.C(), ranged.E()} {
			if err := r.check(n.pod, f.proto, f.at[0], answeredBy(r.A1, r.B1)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := within(limit/2, served); err != nil {
		r.Errorf("with a foreign set in the place of %s other frontends are not served: %v", name, err)
	}
	if a, err := n.Ask(r.Context(), ranged.V().proto, ranged.V().at[0], testbed.Timeout(dropTime)); err == nil { // refused is closed too
		r.Errorf("with a foreign set in the place of %s its Service is open to all: %s answers", name, a.Pod)
	}
	if _, err := n.sh("ipset destroy " + name); err != nil {
		r.Logf("the foreign set is in use: %v", err)
		n.do("ipset flush " + name)
		return
	}
	if err := within(limit/2, func() error {
		return r.check(n.pod, ranged.V().proto, ranged.V().at[0], answeredBy(r.A1, r.B1))
	}); err != nil {
		r.Errorf("after the foreign set has gone: %v", err)
	}
}
