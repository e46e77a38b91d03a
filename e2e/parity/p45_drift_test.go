//go:build e2e && linux

package parity

import (
	"strings"
	"testing"
	"time"
)

// damage is what somebody else does to the subject's state, as a script in the node's namespace.
type damage struct {
	name, script string
	stays        string // a script that fails if the repair went too far
}

// damages to a subject. CLUSTERIP and POD stand for addresses of a virtual server and of one of its real servers.
func (s subject) damages() []damage {
	tables := []damage{
		{name: "jump rules deleted", script: "for c in PREROUTING INPUT OUTPUT POSTROUTING; do iptables -t nat -F $c; done"},
		{name: "nat table emptied", script: "iptables -t nat -F; iptables -t nat -X"},
		{
			name: "a rule put before the jump rule", script: "iptables -t nat -I POSTROUTING 1 -m comment --comment foreign -j ACCEPT",
			stays: "iptables -t nat -S POSTROUTING | grep -q foreign; iptables -t nat -D POSTROUTING -m comment --comment foreign -j ACCEPT",
		},
	}
	switch {
	case s.kubeHop():
		// It picks the endpoints for clients inside the cluster.
		tables = append(tables, damage{name: "tables of nf_tables deleted", script: "nft list tables | grep kube-hop | while read t f n; do nft delete table $f $n; done"})
		fallthrough
	case s.ipvs:
		return append([]damage{
			{name: "virtual servers cleared", script: "ipvsadm -C"},
			{name: "a weight set to 0", script: "ipvsadm -e -t CLUSTERIP:80 -r POD:8080 -m -w 0"},
			{name: "a real server deleted", script: "ipvsadm -d -t CLUSTERIP:80 -r POD:8080"},
			{name: "sets emptied", script: "for s in $(ipset list -n); do ipset flush $s; done"},
			{name: "device deleted", script: "ip link del kube-ipvs0"},
			{name: "vs.conntrack unset", script: "sysctl -qw net.ipv4.vs.conntrack=0"},
		}, tables...)
	case s.name == "kube-proxy-nftables":
		return []damage{{name: "table deleted", script: "nft delete table ip kube-proxy"}}
	default:
		return tables
	}
}

// period is the flag for how often the subject looks after what it programmed.
func (s subject) period(d string) string {
	if s.ipvs {
		return "--ipvs-sync-period=" + d
	}
	return "--iptables-sync-period=" + d
}

func TestP45Drift(t *testing.T) {
	r := begin(t, "P45", "State that others remove or change is repaired within a verification period, their own is left alone")
	s, views := r.service("p45"), r.service("p45-local", etpLocal)
	for _, s := range []*service{s, views} {
		s.endpoints(pods(r.A1, r.B1)...)
	}
	n := r.spare()
	n.start(r.subject.period("2s"))
	r.settle()
	healthy := func() error {
		for f, want := range map[*frontend]outcome{
			new(s.C()): answeredBy(r.A1, r.B1).seeing(n.pod), new(s.V()): answeredBy(r.A1, r.B1).seeing(n.Host),
			new(views.V()): answeredBy(r.A1, r.B1).seeing(n.pod),
		} {
			if err := r.check(n.pod, f.proto, f.at[0], want); err != nil {
				return err
			}
		}
		return r.check(n.Host, s.C().proto, s.C().at[0], answeredBy(r.A1, r.B1).seeing(n.Host))
	}
	r.must(healthy())
	fill := strings.NewReplacer("CLUSTERIP", s.C().at[0].Addr().String(), "POD", r.A1.Addr4.String())
	for _, d := range r.subject.damages() {
		n.do(fill.Replace(d.script))
		// The marks of a damage that is not seen at once are found by looking for a while; 60 s are 30 periods.
		if err := within(60*time.Second, healthy); err != nil {
			r.Errorf("%s: not repaired: %v", d.name, err)
			n.stop() // the next damage shall meet a sound state
			n.start(r.subject.period("2s"))
			if err := within(60*time.Second, healthy); err != nil {
				r.Fatalf("%s: not repaired by a restart either: %v", d.name, err)
			}
		}
		if d.stays != "" {
			if _, err := n.sh(d.stays); err != nil {
				r.Errorf("%s: the repair took what is not the proxy's: %v", d.name, err)
			}
		}
	}
	if !r.subject.kubeHop() {
		return
	}
	m, err := n.Metrics(r.Context(), metricsURL)
	r.must(err)
	if m["kubehop_drift_repairs_total"] < float64(len(r.subject.damages())-1) {
		r.Errorf("kubehop_drift_repairs_total is %v after %d damages", m["kubehop_drift_repairs_total"], len(r.subject.damages()))
	}
}

// within tries until it succeeds or the time has passed.
func within(limit time.Duration, try func() error) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(limit); ; <-again.C {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
