package proxier

import (
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/proxier/render"
)

// What is not used any more keeps its chains for a while, also across a restart.
func TestUseLingers(t *testing.T) {
	var u uses
	at := time.Unix(1_700_000_000, 0)
	for _, step := range []struct {
		what       string
		after      time.Duration
		now        render.Use
		look, more bool
		want       render.Use
	}{
		{what: "a daemon starts", now: render.Unused, want: render.Unknown},
		{what: "soon it does not know yet", after: useLinger - 1, now: render.Unused, look: true, want: render.Unknown},
		{what: "then it does", after: 1, now: render.Unused, look: true, want: render.Unused},
		{what: "used", now: render.Used, more: true, want: render.Used},
		{what: "still used, a long time later", after: time.Hour, now: render.Used, look: true, want: render.Used},
		{what: "just not used any more", after: useLinger - 1, now: render.Unused, look: true, want: render.Used},
		{what: "used again meanwhile", now: render.Used, want: render.Used},
		{what: "and not any more", after: useLinger - 1, now: render.Unused, look: true, want: render.Used},
		{what: "for a while", after: 1, now: render.Unused, look: true, want: render.Unused},
		{what: "a change does not end it", after: time.Hour, now: render.Unused, want: render.Unused},
	} {
		at = at.Add(step.after)
		if more := u.note(render.Uses{Inside: step.now, OnePacket: render.Unused}, at); more != step.more {
			t.Errorf("%s: more is used: %v", step.what, more)
		}
		if step.look {
			u.inside.end(at)
		}
		if got := u.known().Inside; got != step.want {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
}
