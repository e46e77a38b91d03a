//go:build e2e && linux

package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// profiled does a step of the plan while a processor profile of the subject is taken, if the plan wants one, and returns
// when both are done.
func (r *run) profiled(ctx context.Context, step string, do func(context.Context) error) error {
	if r.profile == 0 || !r.hasProfile(step) {
		return do(ctx)
	}
	saved := make(chan error, 1)
	go func() { saved <- r.saveProfile(ctx, step) }()
	err := do(ctx)
	if failed := <-saved; failed != nil {
		fmt.Printf("== no profile of the %s: %v\n", step, failed)
	}
	return err
}

// hasProfile tells in which steps it is the subject that works.
func (r *run) hasProfile(step string) bool {
	switch step {
	case "start", "restart", "idle", "changes", "churn":
		return true
	}
	return false
}

// saveProfile takes a profile as soon as the subject answers.
func (r *run) saveProfile(ctx context.Context, step string) error {
	ctx, cancel := context.WithTimeout(ctx, r.profile+time.Minute)
	defer cancel()
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", metricsAddr, int(r.profile.Seconds()))
	for {
		body, err := r.fetch(ctx, url)
		if err == nil {
			name := fmt.Sprintf("%s-%d-%s.pprof", r.name, r.services, step)
			return os.WriteFile(filepath.Join(r.out, name), body, 0o644)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (r *run) fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := r.node.HTTP().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it is only read
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(res.Body)
}
