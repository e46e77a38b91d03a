package proxier

import (
	"context"
	"time"

	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// Render returns the state that the daemon would program for what a tracker holds, and the Node that it would do so
// for, without a kernel. The node's addresses are those of its Node object.
func Render(ctx context.Context, t *Tracker, cfg Config) (render.State, lb.Node) {
	p := New(cfg, Dataplane{}, metrics.New(), time.Now)
	p.Tracker = t
	p.update(ctx, t.Take())
	return render.Desired(p.model), p.facts.Node
}
