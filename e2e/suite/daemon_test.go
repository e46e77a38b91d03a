//go:build e2e && linux

package suite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	healthURL  = "http://127.0.0.1:10256"
	metricsURL = "http://127.0.0.1:10249"
)

// quickPeriod is the period of verification where a test waits for one: drift must be gone by the end of one, and
// after two a change that is not applied makes the daemon unhealthy.
const quickPeriod = 2 * time.Second

// startLimit is how long a daemon may take to be of service, in a slow guest.
const startLimit = 3 * time.Minute

// launch starts the node's daemon.
func (n *node) launch(ctx context.Context) (err error) {
	args := append([]string{
		"run", "--from", n.folder, "--hostname-override", n.Name, "--cluster-cidr", "10.244.0.0/16,fd24::/48",
		"--ipvs-sync-period", "10m", "--ipvs-min-sync-period", "10ms", "-v", "2",
	}, n.args...)
	n.daemon, err = n.Start(ctx, os.Getenv("KUBE_HOP"), args, n.folder+".log")
	return err
}

// awaitStart waits until the daemon is healthy, that is: until its first sync is over.
func (n *node) awaitStart() error {
	err := await(startLimit, func() error {
		code, body, err := n.get(healthURL + "/healthz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("healthz of %s: %d: %s", n, code, body)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, n.daemon.Tail(25))
	}
	return err
}

// stop ends the daemon by a signal: SIGTERM must give exit status 0.
func (n *node) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	err := n.daemon.Stop(ctx, sig)
	if sig == syscall.SIGTERM && err != nil {
		t.Errorf("kube-hop on %s after SIGTERM: %v, want exit status 0", n, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("kube-hop on %s does not end: %v", n, err)
	}
	n.daemon = nil
}

// get fetches a URL from the node.
func (n *node) get(url string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := n.HTTP().Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// metric returns the sum of the series whose name and labels begin with prefix, such as
// kubehop_drift_repairs_total{kind="ipvs"; zero if there are none.
func (n *node) metric(t *testing.T, prefix string) float64 {
	t.Helper()
	code, body, err := n.get(metricsURL + "/metrics")
	if err != nil || code != http.StatusOK {
		t.Fatalf("metrics of %s: %d, %v", n, code, err)
	}
	sum := 0.0
	for lines := bufio.NewScanner(strings.NewReader(body)); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), prefix) {
			continue
		}
		value := lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:] // label values may have spaces
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("metrics of %s: %q: %v", n, lines.Text(), err)
		}
		sum += v
	}
	return sum
}

// logSince returns a function that returns what the daemon has logged since now.
func (n *node) logSince(t *testing.T) func() string {
	t.Helper()
	read := func() string {
		text, err := os.ReadFile(n.daemon.Log())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	begin := len(read())
	return func() string { return read()[begin:] }
}

// awaitLog waits for a line with all the words.
func awaitLog(t *testing.T, log func() string, words ...string) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		for line := range strings.SplitSeq(log(), "\n") {
			missing := false
			for _, w := range words {
				missing = missing || !strings.Contains(line, w)
			}
			if !missing {
				return nil
			}
		}
		return errors.New("no log line with " + strings.Join(words, " and "))
	})
}

// run runs a command on the node and fails the test if it does not succeed.
func (n *node) run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := n.Command(t.Context(), command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s on %s: %v\n%s", strings.Join(command, " "), n, err, out)
	}
	return string(out)
}

// runWhile runs a command on the node, and when the test ends the one that undoes it.
func (n *node) runWhile(t *testing.T, command, undo []string) {
	t.Helper()
	n.run(t, command...)
	t.Cleanup(func() {
		out, err := n.Command(context.Background(), undo[0], undo[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%s on %s: %v\n%s", strings.Join(undo, " "), n, err, out)
		}
	})
}
