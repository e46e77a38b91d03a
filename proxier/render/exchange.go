package render

import (
	"github.com/kube-hop/kube-hop/ipvs"
)

// exchange plans that a virtual server gets another scheduler. For some milliseconds it then has none, since the kernel
// takes the old one away and waits for its users before it installs the new one (synchronize_rcu in
// ip_vs_edit_service, net/netfilter/ipvs/ip_vs_ctl.c), and refuses what it would have to schedule. So new connections are
// dropped meanwhile, which clients take for a lost packet, and send it again. One exchange is over before the next begins,
// so that changing the scheduler of all Services drops the connections of none for longer than its own takes. What a
// daemon that was killed in between leaves behind is an entry that nothing wants, and goes at the next start.
func (d *differ) exchange(base Op, want ipvs.Config) {
	held := d.held(base.Key)
	put := func(phase Phase, remove bool) {
		for _, m := range held {
			o := base
			o.Phase, o.Set = phase, new(m.op(remove))
			d.exchanges = append(d.exchanges, o)
		}
	}
	put(PhaseGuard, false)
	edit := base
	edit.Phase, edit.IPVS = PhaseServe, &ipvs.Op{Verb: ipvs.EditVirtual, Key: base.Key, Config: want}
	d.exchanges = append(d.exchanges, edit)
	put(PhaseOpen, true)
}

// held returns the entries that keep new connections from a virtual server: those of its frontends that do not drop them
// anyway.
func (d *differ) held(k ipvs.Key) []member {
	keys := []ipvs.Key{k}
	if k.Mark != 0 {
		_, keys, _ = d.model.view(k)
	}
	var out []member
	for _, k := range keys {
		if f, ok := d.model.Frontend(k); ok && f.Drop != DropEverybody {
			out = append(out, keyMember(k, setNoLocal))
		}
	}
	return out
}
