//go:build e2e && linux

package parity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP17Draining: while an endpoint is replaced again and again, its connections go on, and new ones go to the other.
func TestP17Draining(t *testing.T) {
	r := begin(t, "P17", "Removing an endpoint does not cut its connections, nor does it get new ones")
	s := r.service("p17")
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	held := append(r.holdTo(r.Out, s.V(), r.B1), r.holdTo(r.A2, s.C(), r.B1)...)
	for range 2 {
		for _, step := range [][]endpoint{
			{ready(r.A1), terminating(r.B1)},
			{ready(r.A1), unready(r.B1)},
			{ready(r.A1)}, // it left the Service, and lives
		} {
			s.endpoints(step...)
			r.settle()
			r.expect(r.Out, s.V(), answeredBy(r.A1))
			r.expect(r.A2, s.C(), answeredBy(r.A1))
			r.goOn("a connection to an endpoint that drains", held)
		}
		s.endpoints(ready(r.A1), ready(r.B1))
		r.settle()
		r.expect(r.A2, s.C(), answeredBy(r.A1, r.B1))
		r.goOn("a connection to an endpoint that came back", held)
	}
}

// TestP18DeadEndpoint: a client with a fixed source port whose endpoint died without a word reaches another one.
func TestP18DeadEndpoint(t *testing.T) {
	r := begin(t, "P18", "A client with a fixed source port gets away from a dead endpoint; its server goes before the deadline")
	s := r.service("p18", clusterIPOnly)
	s.endpoints(ready(r.B1))
	r.settle()
	held := r.holdTo(r.A1, s.C(), r.B1)
	r.mute(r.B1)
	s.endpoints(ready(r.A2))
	r.settle()
	for i, stream := range held {
		local := testbed.FromPort(stream.Local().Port())
		dst := s.C().at[i]
		r.until("the client gives up, or is told to", func() error {
			if err := stream.Ping(); err != nil && !errors.Is(err, testbed.ErrTimeout) {
				return nil
			}
			if r.subject.ipvs {
				return errors.New("its packets still go to the dead endpoint")
			}
			return nil // the client's own patience is at its end
		})
		_ = stream.Close()
		r.until("a new connection from the same port", func() error {
			a, err := r.A1.Ask(r.Context(), testbed.TCP, dst, local)
			if err == nil && a.Pod != r.A2.Name {
				err = fmt.Errorf("answered by %s", a.Pod)
			}
			return err
		})
	}
}

// mute makes a pod discard everything that it would answer over TCP, until the end of the row.
func (r *row) mute(pod *testbed.Host) {
	r.Helper()
	for _, command := range []string{"iptables", "ip6tables"} {
		rule := []string{"OUTPUT", "-p", "tcp", "--sport", fmt.Sprint(podPort), "-j", "DROP"}
		do := func(verb string) error {
			out, err := pod.Command(context.WithoutCancel(r.Context()), command, append([]string{verb}, rule...)...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s %s on %s: %w: %s", command, verb, pod, err, out)
			}
			return err
		}
		r.must(do("-A"))
		r.Cleanup(func() {
			if err := do("-D"); err != nil {
				r.Errorf("%v", err)
			}
		})
	}
}

// TestP19PortReuse: a client that uses one source port again and again is never sent to an endpoint that left, and none of
// its first packets is lost on the way: as many come to the pods as it sends. It may send one twice all the same, when the
// pod's own stack has not noticed yet that the connection before was reset.
func TestP19PortReuse(t *testing.T) {
	r := begin(t, "P19", "A reused source port connects at once, also while endpoints change")
	s := r.service("p19", clusterIPOnly)
	port, vips := freePort(), s.C().at
	number := lastPort
	sent := r.firstPackets(r.A2, func(p testbed.Packet) bool { return p.Outgoing && slices.Contains(vips, p.Dst) })
	toPods := func(p testbed.Packet) bool { return !p.Outgoing && p.Src.Port() == number && p.Dst.Port() == podPort }
	atA1, atB1 := r.firstPackets(r.A1, toPods), r.firstPackets(r.B1, toPods)
	for _, endpoints := range [][]endpoint{pods(r.A1, r.B1), pods(r.B1), pods(r.A1), pods(r.A1, r.B1)} {
		s.endpoints(endpoints...)
		r.settle()
		for _, dst := range vips {
			for i := range 10 {
				a, err := r.A2.Ask(r.Context(), testbed.TCP, dst, port, testbed.Timeout(patience))
				switch {
				case err != nil:
					r.Errorf("request %d to %s: %s", i+1, dst, word(err))
				case !slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.host.Name == a.Pod }):
					r.Errorf("request %d to %s: answered by %s", i+1, dst, a.Pod)
				}
			}
		}
	}
	if out, in := r.count(sent), r.count(atA1)+r.count(atB1); out != in || out == 0 {
		r.Errorf("%d of %d first packets came to a pod", in, out)
	}
}

// firstPackets counts the first packets of connections on the host's interface that match.
func (r *row) firstPackets(h *testbed.Host, match func(testbed.Packet) bool) *testbed.Sniffer {
	r.Helper()
	s, err := h.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool { return p.Opens && match(p) })
	r.must(err)
	return s
}

// count returns how many packets a sniffer has seen.
func (r *row) count(s *testbed.Sniffer) int {
	r.Helper()
	n, err := s.Count()
	r.must(err)
	return n
}

// TestP21Flapping: connections do not notice that the readiness of their endpoint comes and goes.
func TestP21Flapping(t *testing.T) {
	r := begin(t, "P21", "Readiness that flaps cuts no connection")
	s := r.service("p21")
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	var held []*testbed.Stream
	for range 5 {
		held = append(held, r.holdTo(r.A2, s.C(), r.A1)...)
		held = append(held, r.holdTo(r.Out, s.V(), r.A1)...)
	}
	for range 10 {
		s.endpoints(unready(r.A1), ready(r.B1))
		s.endpoints(ready(r.A1), ready(r.B1))
		r.goOn("a connection to a flapping endpoint", held)
	}
	r.settle()
	r.goOn("a connection to an endpoint that flapped", held)
}

// TestP42SCTP: as TCP, at every frontend: masqueraded or not, and an association goes on while its endpoint drains.
func TestP42SCTP(t *testing.T) {
	r := begin(t, "P42", "SCTP has all frontends, policies and draining")
	s := r.service("p42", over(testbed.SCTP))
	l := r.service("p42-local", over(testbed.SCTP), etpLocal)
	s.endpoints(ready(r.A1), ready(r.B1))
	l.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1, r.B1).seeing(r.A2))
	for _, f := range s.externals(r.N1) {
		r.expect(r.Out, f, answeredBy(r.A1, r.B1).seeing(r.N1))
	}
	for _, f := range l.externals(r.N1) {
		r.expect(r.Out, f, answeredBy(r.A1).seeing(r.Out))
	}
	held := r.holdTo(r.A2, s.C(), r.B1)
	s.endpoints(ready(r.A1), terminating(r.B1))
	r.settle()
	r.expect(r.A2, s.C(), answeredBy(r.A1))
	r.goOn("an association with an endpoint that drains", held)
}
