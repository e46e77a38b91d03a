//go:build e2e && linux

package parity

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// lastPort is the last source port that a row chose; the kernel's own choice begins at 32768.
var lastPort uint16 = 20000

// freePort returns a source port that no row has used yet.
func freePort() testbed.Option {
	lastPort++
	return testbed.FromPort(lastPort)
}

// hold keeps one connection of the client to each address of the frontend, to any of the pods that answer.
func (r *row) hold(client *testbed.Host, f frontend) []*testbed.Stream {
	r.Helper()
	var out []*testbed.Stream
	for _, dst := range f.at {
		s, err := client.Dial(r.Context(), f.proto, dst, freePort(), testbed.Timeout(patience))
		r.must(err)
		r.Cleanup(func() { _ = s.Close() })
		out = append(out, s)
	}
	return out
}

// holdTo keeps one connection to each address of the frontend that the pod answers.
func (r *row) holdTo(client *testbed.Host, f frontend, pod *testbed.Host) []*testbed.Stream {
	r.Helper()
	var out []*testbed.Stream
	for _, dst := range f.at {
		one := f
		one.at = one.at[:0:0]
		one.at = append(one.at, dst)
		for range most {
			s := r.hold(client, one)[0]
			if s.Answer.Pod == pod.Name {
				out = append(out, s)
				break
			}
			_ = s.Close()
		}
	}
	if len(out) < len(f.at) {
		r.Fatalf("%d connections from %s to %s never reached %s", most, client, f.name, pod)
	}
	return out
}

// goOn reports the connections that do not work any more.
func (r *row) goOn(what string, streams []*testbed.Stream) {
	r.Helper()
	for _, s := range streams {
		if err := s.Ping(); err != nil {
			r.Errorf("%s: %s", what, word(err))
		}
	}
}

// reaches waits until the client's requests from one port are answered by one of the pods.
func (r *row) reaches(client *testbed.Host, f frontend, port testbed.Option, pods ...*testbed.Host) {
	r.Helper()
	for _, dst := range f.at {
		r.until(fmt.Sprintf("%s at %s %s", client, f.name, dst), func() error {
			a, err := client.Ask(r.Context(), f.proto, dst, port, testbed.Timeout(time.Second))
			if err != nil {
				return errors.New(word(err))
			}
			if !slices.ContainsFunc(pods, func(p *testbed.Host) bool { return p.Name == a.Pod }) {
				return fmt.Errorf("answered by %s", a.Pod)
			}
			return nil
		})
	}
}
