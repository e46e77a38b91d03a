//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/parity/result"
	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// row is one row of the table that the tests produce: a test that reports how it ended for this subject. Report what
// is wrong by its own Errorf and Fatalf, and not by those of a *testing.T, so that the table can say why.
type row struct {
	*testing.T
	*cluster

	res   result.Result
	seen  string // figures for the table, should the row pass
	begin time.Time

	mu sync.Mutex // expectations are checked side by side
}

// begin begins the row with the ID, such as P17 or X-L-out-V. The title says what must hold.
func begin(t *testing.T, id, title string) *row {
	t.Helper()
	c := shared(t)
	r := &row{T: t, cluster: c, begin: time.Now(), res: result.Result{
		ID: id, Title: title, Subject: c.subject.name, Version: c.version, Kernel: c.kernel, Outcome: result.Pass,
	}}
	t.Cleanup(r.end) // the first to be registered is the last to run
	if result.OneLine(title) != title {
		r.Fatalf("the title does not fit the table: %s", title)
	}
	if err := c.dead(); err != nil {
		r.Fatalf("before the test: %v", err)
	}
	return r
}

// setUp returns what several rows share: Services that live as long as t. It is not a row itself; if it fails, the
// rows that need it are missing in the table.
func setUp(t *testing.T) *row {
	t.Helper()
	c := shared(t)
	r := &row{T: t, cluster: c}
	r.must(c.dead())
	return r
}

// end reports the row.
func (r *row) end() {
	r.res.Seconds = time.Since(r.begin).Seconds()
	if r.Failed() {
		r.res.Outcome = result.Fail
		for n, p := range r.daemons {
			r.Logf("last lines of %s on %s:\n%s", r.subject.name, n, p.Tail(15))
		}
	}
	if r.Failed() && r.res.Reason == "" {
		r.res.Reason = "see the log of the run"
	}
	if r.res.Outcome == result.Pass {
		r.res.Reason = result.OneLine(r.seen)
	}
	fmt.Println(r.res)
	if out := os.Getenv("PARITY_OUT"); out != "" {
		if err := result.Append(filepath.Join(out, r.subject.name+".jsonl"), r.res); err != nil {
			r.T.Error(err)
		}
	}
}

// note keeps the first thing that went wrong for the table, which is not for the folders of one machine.
func (r *row) note(text string) {
	text = strings.ReplaceAll(text, filepath.Dir(r.subject.binary)+string(filepath.Separator), "")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.res.Reason == "" {
		r.res.Reason = result.OneLine(text)
	}
}

// Errorf says what is wrong and lets the test go on.
func (r *row) Errorf(format string, args ...any) {
	r.Helper()
	r.note(fmt.Sprintf(format, args...))
	r.T.Errorf(format, args...)
}

// saw adds figures to what the table shows of a row that passes.
func (r *row) saw(format string, args ...any) {
	r.Helper()
	text := fmt.Sprintf(format, args...)
	r.Log(text)
	if r.seen != "" {
		text = "; " + text
	}
	r.seen += text
}

// Fatalf says what is wrong and ends the test.
func (r *row) Fatalf(format string, args ...any) {
	r.Helper()
	r.note(fmt.Sprintf(format, args...))
	r.T.Fatalf(format, args...)
}

// must ends the test if there is an error.
func (r *row) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatalf("%v", err)
	}
}

// notApplicable ends a test that cannot run on this subject; the table says why.
func (r *row) notApplicable(why string) {
	r.Helper()
	r.res.Outcome, r.res.Reason = result.NotApplicable, why
	r.T.Skip(why)
}

// settle waits until the subject has programmed all that the test stored.
func (r *row) settle() {
	r.Helper()
	r.stopIfSlow()
	r.must(r.cluster.settle(r.Context()))
}

// stopIfSlow ends a row that has failed already, before a step that takes minutes with a subject whose rounds are long. That
// it failed is its result then; for other subjects the log tells what else is wrong.
func (r *row) stopIfSlow() {
	r.Helper()
	if r.Failed() && r.subject.rounds != "" {
		r.Log("it has failed, and the subject is slow: the rest of the row is left out")
		r.FailNow()
	}
}

// until waits for a condition.
func (r *row) until(what string, try func() error) {
	r.Helper()
	r.stopIfSlow()
	r.must(r.await(r.Context(), what, try))
}

// idle lets time pass in which nobody sends anything: how long something is remembered is what some rows are about.
func (r *row) idle(d time.Duration) {
	r.Helper()
	r.stopIfSlow()
	r.Logf("idle for %s", d)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		r.Fatalf("%v", context.Cause(r.Context()))
	}
	r.must(r.dead())
}

// restart starts the subject on the node again with further flags, and after the test without them.
func (r *row) restart(n *testbed.Host, flags ...string) {
	r.Helper()
	r.stopIfSlow()
	r.Cleanup(func() {
		if err := r.startAgain(context.WithoutCancel(r.Context()), n, nil); err != nil {
			r.Errorf("after the test: %v", err)
		}
	})
	r.must(r.startAgain(r.Context(), n, flags))
}

func (c *cluster) startAgain(ctx context.Context, n *testbed.Host, flags []string) error {
	if c.daemons[n] != nil {
		if err := c.stopDaemon(ctx, n); err != nil {
			return err
		}
	}
	c.extra[n] = flags
	if err := c.startDaemon(ctx, n); err != nil {
		return err
	}
	return c.settle(ctx)
}
