//go:build e2e && linux

package parity

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// who are the hosts that have parts in the truth table.
type who string

// The clients. Endpoints are on A1 and B1, so that no client is its own server.
const (
	pod     who = "pod on the node" // A2
	rpod    who = "pod on another node, by way of this one"
	node    who = "the node itself"
	outside who = "outside machine"

	undetected who = "pod that the proxy cannot tell from others"
)

// how requests end.
type how string

const (
	all      how = "every endpoint"
	local    how = "only the node's endpoint"
	drop     how = "dropped"
	refuse   how = "refused"
	arriving how = "sent to the endpoint elsewhere" // whose answer takes another way back
)

// as whom pods see their clients.
type as string

const (
	themselves as = "client address kept"
	masked     as = "masqueraded"
)

// truth is one row of the truth table: requests of the client to a frontend of a Service with a policy end as both
// says if there is an endpoint on the node and one on another node, as remote says if there is only the one on the
// other node, and are refused if there is none.
type truth struct {
	id     string // C for ClusterIP or X for external, the policy, the client; a letter for the frontend follows X
	client who
	both   how
	peer   as
	remote how
}

// truths is the table for this node. With --cluster-cidr a pod of another node counts as a local source, so its
// requests to ClusterIPs keep its address, and an answer of a third node's pod goes past the NAT; the endpoints are
// then those of this node alone.
var truths = []truth{
	{"C-C-pod", pod, all, themselves, all},
	{"C-C-rpod", rpod, local, themselves, arriving},
	{"C-C-node", node, all, masked, all},
	{"C-C-out", outside, all, masked, all},
	{"C-L-pod", pod, local, themselves, drop},
	{"C-L-rpod", rpod, local, themselves, drop},
	{"C-L-node", node, local, masked, drop},
	{"C-L-out", outside, local, masked, drop},
	{"X-C-pod", pod, all, masked, all},
	{"X-C-rpod", rpod, all, masked, all},
	{"X-C-node", node, all, masked, all},
	{"X-C-out", outside, all, masked, all},
	{"X-L-pod", pod, all, themselves, all},
	{"X-L-rpod", rpod, local, themselves, arriving},
	{"X-L-node", node, all, masked, all},
	{"X-L-out", outside, local, themselves, drop},
}

// truthServices are the Services that the rows share: by policy, and by where the endpoints are.
type truthServices map[string]*service

// get returns the Service for a row, and the pods behind it.
func (s truthServices) get(t truth, endpoints string) *service { return s[t.id[:3]+" "+endpoints] }

// TestTruthTable: every row of the truth table, each of the X rows at an external IP (E), at a load balancer IP (V)
// and at a node port (N).
func TestTruthTable(t *testing.T) {
	setup := setUp(t)
	services := setup.truthServices("truth")
	setup.settle()
	setup.eachTruth(func(tr truth, id string, front func(*service) frontend) {
		t.Run(id, func(t *testing.T) { tr.check(begin(t, id, tr.title(id)), services, front) })
	})
}

// truthServices stores Services for the whole table, with options beside those that the table needs.
func (r *row) truthServices(name string, more ...option) truthServices {
	r.Helper()
	services := truthServices{}
	for policy, opts := range map[string][]option{
		"C-C": {clusterIPOnly}, "C-L": {clusterIPOnly, itpLocal}, "X-C": nil, "X-L": {etpLocal},
	} {
		for endpoints, hosts := range map[string][]*testbed.Host{
			"both": {r.A1, r.B1}, "local": {r.A1}, "remote": {r.B1}, "none": nil,
		} {
			s := r.service(strings.ToLower(name+"-"+policy+"-"+endpoints), slices.Concat(opts, more)...)
			s.endpoints(pods(hosts...)...)
			services[policy+" "+endpoints] = s
		}
	}
	return services
}

// eachTruth calls fn with every row of the table, the X rows at each kind of external frontend, and with its ID.
func (c *cluster) eachTruth(fn func(tr truth, id string, front func(*service) frontend)) {
	for _, tr := range truths {
		if strings.HasPrefix(tr.id, "C-") {
			fn(tr, tr.id, (*service).C)
			continue
		}
		for _, x := range c.externalKinds() {
			fn(tr, tr.id+"-"+x.kind, x.front)
		}
	}
}

// externalKind is a kind of external frontend.
type externalKind struct {
	kind  string
	front func(*service) frontend
}

func (c *cluster) externalKinds() []externalKind {
	return []externalKind{{"E", (*service).E}, {"V", (*service).V}, {"N", func(s *service) frontend { return s.N(c.N1) }}}
}

// title puts the row into words.
func (tr truth) title(id string) string {
	front := map[byte]string{'C': "ClusterIP", 'E': "external IP", 'V': "load balancer IP", 'N': "node port"}[id[len(id)-1]]
	policy := "eTP"
	if id[0] == 'C' {
		front, policy = "ClusterIP", "iTP"
	}
	value := map[byte]string{'C': "Cluster", 'L': "Local"}[id[2]]
	return fmt.Sprintf("%s %s at the %s, %s: %s, %s; endpoints elsewhere only: %s; none: refused",
		policy, value, front, tr.client, tr.both, tr.peer, tr.remote)
}

// check asks with the endpoints on both nodes, on the other node only, and nowhere.
func (tr truth) check(r *row, services truthServices, front func(*service) frontend) {
	r.Helper()
	client := map[who]*testbed.Host{pod: r.A2, rpod: r.C1, undetected: r.A2, node: r.N1, outside: r.Out}[tr.client]
	both := "both"
	if tr.remote == arriving { // half of the answers would be lost
		both = "local"
	}
	for _, c := range []struct {
		endpoints string
		want      how
	}{{both, tr.both}, {"remote", tr.remote}, {"none", refuse}} {
		f := front(services.get(tr, c.endpoints))
		f.name += " with endpoints " + c.endpoints
		peers := []*testbed.Host{client}
		if tr.peer == masked {
			peers = []*testbed.Host{r.N1}
		}
		switch c.want {
		case all:
			answering := map[string][]*testbed.Host{"both": {r.A1, r.B1}, "local": {r.A1}, "remote": {r.B1}}[c.endpoints]
			r.expect(client, f, answeredBy(answering...).seeing(peers...))
		case local:
			r.expect(client, f, answeredBy(r.A1).seeing(peers...))
		case drop:
			r.expectNothingSent(client, f)
		case refuse:
			r.expect(client, f, refused())
		case arriving:
			r.expectArriving(client, f, r.B1)
		}
	}
}

// expectNothingSent is dropped, and nothing of the requests leaves N1 towards the other node's pods.
func (r *row) expectNothingSent(client *testbed.Host, f frontend) {
	r.Helper()
	sniffer, err := r.N1.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool {
		return p.Outgoing && p.Dst.Port() == podPort && (has(r.B1, p.Dst.Addr()) || has(r.B2, p.Dst.Addr())) &&
			has(client, p.Src.Addr())
	})
	r.must(err)
	r.expect(client, f, dropped())
	if n, err := sniffer.Count(); n > 0 || err != nil {
		r.Errorf("%s to %s: %d packets leave the node towards another node's pod (%v), want none", client, f.name, n, err)
	}
}

// expectArriving: the client's packets reach the pod, answered or not.
func (r *row) expectArriving(client *testbed.Host, f frontend, pod *testbed.Host) {
	r.Helper()
	for _, dst := range f.at {
		sniffer, err := pod.Sniff(r.Context(), "eth0", func(p testbed.Packet) bool {
			return !p.Outgoing && p.Dst.Port() == podPort && p.Dst.Addr() == pod.Addr(dst.Addr())
		})
		r.must(err)
		_, aerr := client.Ask(r.Context(), f.proto, dst, testbed.Timeout(dropTime))
		if n, err := sniffer.Count(); n == 0 || err != nil {
			r.Errorf("%s to %s %s: no packet reaches %s (%v, %v)", client, f.name, dst, pod, aerr, err)
		}
	}
}
