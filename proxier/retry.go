package proxier

import (
	"net/netip"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// firstRetry is the wait before the first retry; each further failure doubles it.
const firstRetry = time.Second

// object is what can fail on its own: a frontend, or an address. The zero object stands for what all of them need:
// sets, rules, sysctls, and a look at the kernel.
type object struct {
	key    ipvs.Key
	vip    netip.Prefix
	flows  bool // the cleanup of stale flows
	drains bool // looking at what drains
}

// String names the object in logs.
func (o object) String() string {
	switch {
	case o.flows:
		return "stale flows"
	case o.drains:
		return "draining real servers"
	case o.vip.IsValid():
		return "address " + o.vip.String()
	case o.key.Addr.IsValid():
		return "frontend " + o.key.String()
	default:
		return "common state"
	}
}

func objectOf(o render.Op) object {
	if o.VIP.IsValid() {
		return object{vip: o.VIP}
	}
	return object{key: o.Key}
}

// attempt is the retry of one object.
type attempt struct {
	service lb.Name
	since   time.Time // first failure
	at      time.Time // next try
	wait    time.Duration
}

// retryQueue holds the objects that are not as they should be. Its size is the number of failing objects.
type retryQueue struct {
	most  time.Duration // longest wait
	items map[object]attempt
}

func newRetryQueue(most time.Duration) *retryQueue {
	return &retryQueue{most: max(most, firstRetry), items: map[object]attempt{}}
}

// failed schedules the next try of an object, and reports whether its failure is new.
func (q *retryQueue) failed(o object, service lb.Name, now time.Time) (first bool) {
	a, again := q.items[o]
	if !again {
		a = attempt{since: now, wait: firstRetry}
	} else {
		a.wait = min(2*a.wait, q.most)
	}
	a.service, a.at = service, now.Add(a.wait)
	q.items[o] = a
	return !again
}

// succeeded forgets an object.
func (q *retryQueue) succeeded(o object) { delete(q.items, o) }

// due returns the objects whose time has come.
func (q *retryQueue) due(now time.Time) []render.Touched {
	var out []render.Touched
	for o, a := range q.items {
		if a.at.After(now) || o == (object{}) || o.flows || o.drains {
			continue
		}
		t := render.Touched{Service: a.service}
		if o.vip.IsValid() {
			t.Prefixes = []netip.Prefix{o.vip}
		} else {
			t.Keys = []ipvs.Key{o.key}
		}
		out = append(out, t)
	}
	return out
}

// isDue reports whether an object waits for a retry whose time has come.
func (q *retryQueue) isDue(o object, now time.Time) bool {
	a, ok := q.items[o]
	return ok && !a.at.After(now)
}

// next returns the time of the earliest try.
func (q *retryQueue) next() (time.Time, bool) {
	var next time.Time
	for _, a := range q.items {
		if next.IsZero() || a.at.Before(next) {
			next = a.at
		}
	}
	return next, !next.IsZero()
}

// oldest returns when the failure that has lasted longest began; zero if nothing is failing.
func (q *retryQueue) oldest() time.Time {
	var oldest time.Time
	for _, a := range q.items {
		if oldest.IsZero() || a.since.Before(oldest) {
			oldest = a.since
		}
	}
	return oldest
}
