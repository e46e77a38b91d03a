package conntracktest_test

import (
	"testing"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/conntrack/conntracktest"
)

func TestFake(t *testing.T) {
	conntracktest.Conformance(t, func(*testing.T) conntracktest.Env {
		f := conntracktest.NewFake()
		return conntracktest.Env{
			Table: f,
			Add:   func(_ *testing.T, flow conntrack.Flow) { f.Add(flow) },
			Has:   func(_ *testing.T, flow conntrack.Flow) bool { return f.Has(flow) },
		}
	})
}
