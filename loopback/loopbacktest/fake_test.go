package loopbacktest_test

import (
	"testing"

	"github.com/kube-hop/kube-hop/loopback"
	"github.com/kube-hop/kube-hop/loopback/loopbacktest"
)

func TestFake(t *testing.T) {
	loopbacktest.Conformance(t, func(*testing.T) func() loopback.Table {
		f := loopbacktest.NewFake()
		return func() loopback.Table { return f }
	})
}
