//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
)

// storePath is where what etcd stored for n Services is kept. The API server that stored it is part of the name.
func (p plan) storePath(n int) string {
	return filepath.Join(p.out, fmt.Sprintf("store-%s-%s-%d", storeVersion, filepath.Base(p.bin), n))
}

// TestStore stores the objects of every size that is not there yet, and the few that the machine is warmed up with. It needs no privileges and no kernel.
func TestStore(t *testing.T) {
	p := planned(t)
	for _, n := range append([]int{smallest}, p.sizes...) {
		if _, err := os.Stat(p.storePath(n)); err == nil {
			continue
		}
		begin := time.Now()
		if err := p.fill(t.Context(), t.TempDir(), n); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("== %d Services stored in %.0f s\n", n, time.Since(begin).Seconds())
	}
}

// fill runs a control plane in dir until it has stored n Services, and keeps what etcd wrote.
func (p plan) fill(ctx context.Context, dir string, n int) error {
	cp, err := controlplane.Start(ctx, controlplane.Options{
		Dir: filepath.Join(dir, "cp"), BinDir: p.bin, ServiceCIDRs: serviceRanges(),
	})
	if err != nil {
		return err
	}
	err = create(ctx, cp.Client(), n)
	cp.Close()
	if err != nil {
		return err
	}
	path := p.storePath(n)
	part := path + ".part" // what was cut short must not pass for the whole
	if err := errors.Join(os.RemoveAll(part), os.CopyFS(part, os.DirFS(cp.Data()))); err != nil {
		return err
	}
	return os.Rename(part, path)
}
