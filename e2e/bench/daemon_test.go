//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

// Names of metrics that all subjects have.
const (
	lastSync     = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
	syncDuration = "kubeproxy_sync_proxy_rules_duration_seconds"
)

// startDaemon starts the subject and returns when it did.
func (r *run) startDaemon(ctx context.Context) (begin time.Time, err error) {
	begin = time.Now()
	args := slices.Concat(r.args(r.node.Name, r.kubeconfig), r.tried)
	if r.profile > 0 {
		args = append(args, "--profiling")
	}
	r.daemon, err = r.node.Start(ctx, r.binary, args, filepath.Join(r.dir, r.name+".log"))
	return begin, err
}

// ended tells whether the subject has run and is not there any more.
func (r *run) ended() bool {
	if r.daemon == nil {
		return false
	}
	select {
	case <-r.daemon.Done():
		return true
	default:
		return false
	}
}

// await tries again and again until it succeeds. When the limit has passed the error is errUnfinished.
func (r *run) await(ctx context.Context, every, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errUnfinished)
	defer cancel()
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if r.ended() {
			return fmt.Errorf("%s has ended; last: %w\n%s", r.name, err, r.daemon.Tail(30))
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		}
	}
}

// rest waits; it ends early only with an error.
func (r *run) rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.daemon.Done():
		return fmt.Errorf("%s has ended:\n%s", r.name, r.daemon.Tail(30))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// inSync returns when the last sync ended, or an error while not all Services are known.
func (r *run) inSync(ctx context.Context) (time.Time, error) {
	m, err := r.node.Series(ctx, metricsURL)
	if err != nil {
		return time.Time{}, err
	}
	last := most(m, lastSync)
	if last == 0 {
		return time.Time{}, errors.New("no successful sync yet")
	}
	// kube-proxy waits for all objects before its first sync, and does not say how many they are.
	if got, want := int(most(m, "kubehop_services")), r.services+others; r.name == result.KubeHop && got != want {
		return time.Time{}, fmt.Errorf("%d services, want %d", got, want)
	}
	whole, part := math.Modf(last)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// most returns the greatest value of a metric's series, which differ by address family; 0 if there is none.
func most(series map[string]float64, name string) float64 {
	var v float64
	for s, each := range series {
		if s == name || strings.HasPrefix(s, name+"{") {
			v = max(v, each)
		}
	}
	return v
}

// syncTimes is how many syncs there were and how long they took together, in seconds. kube-hop counts verifications of
// everything among them.
type syncTimes struct{ count, sum float64 }

// syncs returns those of IPv4 so far. What it costs the daemon to tell is added to r.telling.
func (r *run) syncs(ctx context.Context) (syncTimes, error) {
	before, err := r.daemon.CPU()
	if err != nil {
		return syncTimes{}, err
	}
	m, err := r.node.Series(ctx, metricsURL)
	if err != nil {
		return syncTimes{}, err
	}
	after, err := r.daemon.CPU()
	if err != nil {
		return syncTimes{}, err
	}
	r.telling += after - before
	const family = `{ip_family="IPv4"}`
	count, found := m[syncDuration+"_count"+family]
	if !found {
		return syncTimes{}, fmt.Errorf("no %s_count%s", syncDuration, family)
	}
	return syncTimes{count, m[syncDuration+"_sum"+family]}, nil
}
