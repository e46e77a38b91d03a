package proxier

import (
	"context"
	"time"

	"github.com/kube-hop/kube-hop/proxier/render"
)

// useLinger is for how long the chains stay of what nothing uses any more: answers of endpoints may be under way, which
// connection tracking awaits for half of that time, and what was used may soon be used again.
const useLinger = time.Minute

// uses is what Services use of that which has chains of its own.
type uses struct{ inside, onePacket use }

// use is whether one such thing is used, and when it last was.
type use struct {
	is   render.Use
	last time.Time
}

func (u *uses) known() render.Uses {
	return render.Uses{Inside: u.inside.is, OnePacket: u.onePacket.is}
}

// note takes in what is used now, and reports whether something is that was not before.
func (u *uses) note(now render.Uses, at time.Time) (more bool) {
	inside, onePacket := u.inside.note(now.Inside, at), u.onePacket.note(now.OnePacket, at)
	return inside || onePacket
}

func (u *use) note(now render.Use, at time.Time) (more bool) {
	if now == render.Used || u.last.IsZero() {
		u.last = at // a daemon that starts does not know when something was used last
	}
	if more = now == render.Used && u.is != render.Used; more {
		u.is = render.Used
	}
	return more
}

// end is for looking from time to time what is not used any more.
func (u *use) end(at time.Time) {
	if at.Sub(u.last) >= useLinger {
		u.is = render.Unused
	}
}

// needChains makes the chains of what is used and has none yet. It comes before what needs them; if it fails, that is exposed
// all the same, as in kernels without nf_tables, until the retry has made them.
func (p *Proxier) needChains(ctx context.Context) {
	if !p.uses.note(render.UsesOf(p.model, p.state), p.now()) {
		return
	}
	if err := p.prepareTables(ctx); err != nil {
		p.verifyFailed(ctx, err)
	}
}

// endUses decides which chains the next look at the tables deletes.
func (p *Proxier) endUses() {
	if !p.adopted {
		return
	}
	p.uses.note(render.UsesOf(p.model, p.state), p.now())
	p.uses.inside.end(p.now())
	p.uses.onePacket.end(p.now())
}
