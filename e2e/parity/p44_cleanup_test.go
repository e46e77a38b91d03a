//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// foreign is state of others beside the subject's: virtual servers by address and by mark, a set, chains, a device.
const foreign = `
ipvsadm -A -t 192.0.2.1:7000 -s wlc
ipvsadm -a -t 192.0.2.1:7000 -r 10.244.9.9:7000 -m
ipvsadm -A -u 192.0.2.1:7000
ipvsadm -A -f 7 -s rr
ipvsadm -A -t [2001:db8::1]:7000 -s rr
ipset create FOREIGN hash:ip
ipset add FOREIGN 192.0.2.2
iptables -t nat -N FOREIGN-NAT
iptables -t nat -A PREROUTING -s 192.0.2.3 -j FOREIGN-NAT
iptables -A INPUT -m set --match-set FOREIGN src -j DROP
ip6tables -N FOREIGN6
ip6tables -A OUTPUT -d 2001:db8::2 -j FOREIGN6
nft add table ip foreign
ip link add foreign0 type dummy
ip addr add 192.0.2.4/32 dev foreign0
ip link set foreign0 up
ip rule add from 192.0.2.4 table 77
ip route add 192.0.2.5/32 dev foreign0 table 77
`

// snapshot prints all that a proxy might change.
const snapshot = `
ipvsadm -S -n
ipset save
iptables-save
ip6tables-save
nft list tables
ip -o addr show
ip rule
ip -6 rule
ip route show table all
ip -6 route show table all
`

// TestP44Cleanup: two rows of one problem, what cleanup takes and what a switch from and to another proxy leaves.
func TestP44Cleanup(t *testing.T) {
	r := begin(t, "P44", "Cleanup removes all that is the proxy's and nothing else, and can be repeated; after a switch from another "+
		"proxy, and back, clients are answered, also where nobody was before")
	s := r.service("p44", sourceRanges("10.0.0.0/8", "fd00::/8"))
	s.endpoints(pods(r.A1, r.B1)...)
	n := r.spare()
	n.do(foreign)
	n.do("iptables -t mangle -L -n >/dev/null; ip6tables -t mangle -L -n >/dev/null") // looking is what makes a table
	before := n.state()
	n.start()
	r.settle()
	r.expect(n.pod, s.V(), answeredBy(r.A1, r.B1))
	n.stop()
	for _, round := range []string{"cleanup", "a second cleanup"} {
		if err := n.cleanup(r.subject); err != nil {
			r.Errorf("%s: %v", round, err)
		}
		if d := cmp.Diff(before, n.state()); d != "" {
			r.Errorf("after %s the node is not as before: %s\n%s", round, differences(d), d)
		}
	}
	for _, other := range r.others() {
		r.switchFrom(other)
	}
}

// others are the proxies to switch from and to: in a short run one, since kube-proxy's cleanup takes most of a minute.
func (r *row) others() []subject {
	short := map[bool]string{true: "kube-proxy-iptables", false: "kube-hop"}[r.subject.kubeHop()]
	return slices.DeleteFunc(subjects(), func(s subject) bool {
		return s.name == r.subject.name || testing.Short() && s.name != short
	})
}

// switchFrom lets a node change from another proxy to the subject and back, each time as an administrator does it: stop
// the one, clean up after it, start the other.
func (r *row) switchFrom(other subject) {
	r.Helper()
	n := r.spare()
	s := r.service("p44-from-"+other.name, over(testbed.TCP, testbed.UDP))
	empty := r.service("p44-empty-"+other.name, over(testbed.TCP, testbed.UDP))
	s.endpoints(ready(r.A1))
	empty.endpoints()
	r.must(r.startProxy(r.Context(), other, n.Host))
	r.Cleanup(n.kill)
	r.settle()
	clients := r.steady(n, s)
	clients.wait("with "+other.name, r.A1)
	for what, f := range n.fronts(empty) {
		if err := r.check(n.pod, f.proto, f.at[0], refused()); err != nil {
			r.Logf("%s with %s: %v", what, other.name, err) // its own affair
		}
	}
	n.stop()
	if err := n.cleanup(other); err != nil {
		r.Logf("cleanup of %s: %v", other.name, err)
	}
	before := n.state()

	n.start()
	n.takesOver(clients, "from "+other.name, s, empty, r.B1)
	s.endpoints(ready(r.B1))
	empty.endpoints()
	r.settle()
	n.stop()
	r.must(n.cleanup(r.subject))
	if d := cmp.Diff(before, n.state()); d != "" {
		r.Errorf("cleanup leaves what was not there after %s: %s\n%s", other.name, differences(d), d)
	}
	r.must(r.startProxy(r.Context(), other, n.Host))
	n.takesOver(clients, "back to "+other.name, s, empty, r.A1)
	clients.stop()
	n.stop()
}

// takesOver checks that clients which never stopped asking are answered by the proxy that runs now: by the endpoint
// that there was, and by the one that comes in its place, and where there was none before.
func (s *spare) takesOver(clients *steady, what string, served, empty *service, next *testbed.Host) {
	r := s.row
	r.Helper()
	r.settle()
	clients.wait("after the switch "+what, map[*testbed.Host]*testbed.Host{r.A1: r.B1, r.B1: r.A1}[next])
	served.endpoints(ready(next))
	empty.endpoints(ready(next))
	r.settle()
	clients.wait("after the switch "+what+" and a change", next)
	for front, f := range s.fronts(empty) {
		for _, client := range []*testbed.Host{s.pod, s.Host, r.Out} {
			if client == r.Out && front[0] != 'n' {
				continue // its packets to the others go by way of another node
			}
			f.name += " of a Service without endpoints before the switch " + what
			r.expect(client, f, answeredBy(next))
		}
	}
}

// fronts returns a Service's frontends for a client on the node.
func (s *spare) fronts(of *service) map[string]frontend {
	out := map[string]frontend{}
	for _, proto := range []testbed.Proto{testbed.TCP, testbed.UDP} {
		p := of.overProto(proto)
		for _, f := range []frontend{p.C(), p.V(), p.E(), p.N(s.Host)} {
			out[f.name+" "+string(proto)] = f
		}
	}
	return out
}

// steady are clients that ask all the time, over UDP each from one port, whoever answers.
type steady struct {
	row  *row
	stop func()

	mu     sync.Mutex
	last   map[string]string // who answered, or how it failed
	streak map[string]int    // how often so, one after the other
}

// steady starts clients of the Service on the node, and outside, until stop or the end of the row.
func (r *row) steady(n *spare, s *service) *steady {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	out := &steady{row: r, last: map[string]string{}, streak: map[string]int{}}
	var wg sync.WaitGroup
	out.stop = func() { cancel(); wg.Wait() }
	r.Cleanup(out.stop)
	for _, f := range n.fronts(s) {
		for _, dst := range f.at {
			client := n.pod
			if strings.HasSuffix(f.name, ":N") {
				client = r.Out
			}
			what := fmt.Sprintf("%s to %s %s (%s)", client, f.proto, f.name, dst)
			opts := []testbed.Option{testbed.Timeout(dropTime)}
			if f.proto == testbed.UDP {
				opts = append(opts, freePort())
			}
			out.saw(what, "nothing yet")
			wg.Go(func() {
				again := time.NewTicker(100 * time.Millisecond) // a refusal takes no time
				defer again.Stop()
				for ; ctx.Err() == nil; <-again.C {
					a, err := client.Ask(ctx, f.proto, dst, opts...)
					if err != nil {
						a.Pod = word(err)
					}
					out.saw(what, a.Pod)
				}
			})
		}
	}
	return out
}

func (s *steady) saw(what, outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last[what] != outcome {
		s.streak[what] = 0
	}
	s.last[what] = outcome
	s.streak[what]++
}

// wait waits until every client was answered by the pod three times in a row.
func (s *steady) wait(when string, pod *testbed.Host) {
	s.row.Helper()
	served := map[string]bool{}
	s.mu.Lock()
	clear(s.streak)
	s.mu.Unlock()
	err := within(2*time.Minute, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		var err error
		for what, last := range s.last {
			served[what] = served[what] || last == pod.Name && s.streak[what] >= 3
			if !served[what] {
				err = fmt.Errorf("%s: %s, want %s", what, last, pod)
			}
		}
		return err
	})
	if err != nil {
		s.row.Errorf("%s: %v", when, err)
	}
}

// state returns the node's state without what differs from look to look: lines are sorted, since sets are not; counters
// and empty tables are left out.
func (s *spare) state() []string {
	s.row.Helper()
	var out []string
	for line := range strings.Lines(s.do(snapshot)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '*' || line == "COMMIT" {
			continue
		}
		if line[0] == ':' { // a chain with its counters; the built-in ones come with their table
			name, policy, _ := strings.Cut(line, " ")
			if !strings.HasPrefix(policy, "-") {
				continue
			}
			line = name
		}
		if isTable(line) || strings.Contains(line, "fe80:") { // a link-local address comes with any device
			continue
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// isTable tells tables of iptables, which stay once they have been looked at.
func isTable(line string) bool {
	return slices.Contains([]string{
		"table ip nat", "table ip filter", "table ip mangle", "table ip raw", "table ip security",
		"table ip6 nat", "table ip6 filter", "table ip6 mangle", "table ip6 raw", "table ip6 security",
	}, line)
}

// differences puts a difference into one line.
func differences(diff string) string {
	var out []string
	for line := range strings.Lines(diff) {
		if line[0] == '-' || line[0] == '+' {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, " ")
}
