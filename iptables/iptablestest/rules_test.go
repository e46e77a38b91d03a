package iptablestest

import (
	"testing"

	"github.com/kube-hop/kube-hop/iptables"
)

func TestFakeRules(t *testing.T) {
	for _, f := range []iptables.Family{iptables.IPv4, iptables.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			ConformanceRules(t, func(*testing.T) RulesEnv {
				fake := NewFakeRules()
				return RulesEnv{Family: f, Rules: fake, Other: fake}
			})
		})
	}
}
