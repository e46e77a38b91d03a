package nftnl

import (
	"fmt"
	"slices"

	"github.com/kube-hop/kube-hop/nftables"
)

// repair is the transaction that makes a table what it should be.
type repair struct {
	want     nftables.Table
	have     contents
	requests []request
	lines    []string // the differences
}

// tableFromNothing returns the requests that make a table that is absent.
func tableFromNothing(t nftables.Table) ([]request, error) {
	r := repair{want: t}
	err := r.plan()
	return r.requests, err
}

func (r *repair) differ(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf("%s %s: %s", r.want.Family, r.want.Name, fmt.Sprintf(format, args...)))
}

func (r *repair) add(requests ...request) { r.requests = append(r.requests, requests...) }

// plan fills requests and lines; without a difference there are no lines.
func (r *repair) plan() error {
	r.add(tableRequest(r.want))
	for _, s := range r.want.Sets {
		if have, ok := r.have.sets[s.Name]; ok && have != s {
			// Rules refer to it, so that it cannot go alone.
			r.differ("set %s has another type", s.Name)
			r.add(deleteTableRequest(r.want), tableRequest(r.want))
			r.have = contents{}
			break
		}
	}
	for i, s := range r.want.Sets {
		if _, ok := r.have.sets[s.Name]; !ok {
			r.differ("set %s is missing", s.Name)
			r.add(setRequest(r.want, s, uint32(i+1))) //nolint:gosec // few
		}
	}
	for _, c := range r.want.Chains {
		if err := r.chain(c); err != nil {
			return err
		}
	}
	r.deleteOthers()
	return nil
}

// deleteOthers deletes the chains that are not wanted. Their rules may lead from one to another, so all of these go first.
func (r *repair) deleteOthers() {
	var others []string
	for name := range r.have.chains {
		if !slices.ContainsFunc(r.want.Chains, func(c nftables.Chain) bool { return c.Name == name }) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	for _, name := range others {
		r.differ("chain %s is not needed", name)
		r.add(flushChainRequest(r.want, name))
	}
	for _, name := range others {
		r.add(deleteChainRequest(r.want, name))
	}
}

func (r *repair) chain(want nftables.Chain) error {
	have, ok := r.have.chains[want.Name]
	moved := ok && (have.Hook != want.Hook || have.Priority != want.Priority || have.NAT != want.NAT)
	texts := make([]string, len(want.Rules))
	for i, rule := range want.Rules {
		texts[i] = parseComment(comment(rule.Text(r.want.Family)))
	}
	switch {
	case !ok && want.IfThere:
		return nil
	case !ok:
		r.differ("chain %s is missing", want.Name)
		r.add(chainRequest(r.want, want))
	case moved:
		r.differ("chain %s is at another hook or priority, or of another type", want.Name)
		r.add(flushChainRequest(r.want, want.Name), deleteChainRequest(r.want, want.Name), chainRequest(r.want, want))
	case slices.Equal(r.have.rules[want.Name], texts):
		return nil
	default:
		r.differ("chain %s has other rules", want.Name)
		r.add(flushChainRequest(r.want, want.Name))
	}
	for _, rule := range want.Rules {
		request, err := ruleRequest(r.want, want.Name, rule)
		if err != nil {
			return err
		}
		r.add(request)
	}
	return nil
}
