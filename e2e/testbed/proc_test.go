//go:build e2e && linux

package testbed_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

func TestProcess(t *testing.T) {
	bed := newBed(t, testbed.Options{})
	inside, err := bed.A1.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(inside)) == outside {
		t.Error("command ran in the test's own namespace")
	}
	logfile := filepath.Join(t.TempDir(), "log")
	p, err := bed.A1.Start(t.Context(), "sh", []string{"-c", "readlink /proc/self/ns/net; exec sleep 600"}, logfile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for p.Tail(1) == "" && ctx.Err() == nil { // until the shell has written
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	if got := p.Tail(1); got != string(inside) {
		t.Errorf("process ran in %q, want %q", got, inside)
	}
	var exit *exec.ExitError
	if err := p.Stop(ctx, syscall.SIGTERM); !errors.As(err, &exit) || exit.Exited() {
		t.Errorf("%v, want ended by a signal", err)
	}
	if _, err := bed.A1.Start(t.Context(), "/no/such/binary", nil, logfile); err == nil {
		t.Error("start of nothing succeeds")
	}
}
