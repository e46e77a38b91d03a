//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// replaceEndpoint takes b1 out of the Service and puts b2 in, and measures how long clients notice.
func (d *demo) replaceEndpoint(ctx context.Context) error {
	before, err := scrape(ctx, d.bed.N1)
	if err != nil {
		return err
	}
	changed, err := d.rewriteSlices()
	if err != nil {
		return err
	}
	took, asked, err := d.awaitReplacement(ctx, d.bed.A1, clusterIPs[0], changed, 30)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  n1: %.1f ms from the rename to the first answer of b2; b1 silent from then on (%d requests of a1)\n",
		took.Seconds()*1000, asked)
	// The daemons are stopped next: see every frontend follow before.
	for _, f := range d.frontends()[1:] {
		if _, _, err := d.awaitReplacement(ctx, d.bed.A1, f.addr, changed, 6); err != nil {
			return err
		}
	}
	for _, service := range clusterIPs { // b1 is only a client now
		if _, _, err := d.awaitReplacement(ctx, d.bed.B1, service, changed, 6); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out, "  the other frontends on n1, and n2 for requests of b1: the same, not measured")
	d.reportMetrics(ctx, before)
	return nil
}

// rewriteSlices edits web.yaml in the folder of each node. The new text is put in place by a rename, so that no
// daemon can read half of it. It returns the moment before the first rename.
func (d *demo) rewriteSlices() (time.Time, error) {
	staged := map[string]string{}
	for _, n := range d.bed.Nodes() {
		target := filepath.Join(d.folder(n), "web.yaml")
		text, err := os.ReadFile(target)
		if err != nil {
			return time.Time{}, err
		}
		next := filepath.Join(d.dir, n.Name+"-web.yaml.next") // outside the folder that is watched
		edited := replacement(d.bed.B1, d.bed.B2, time.Now()).Replace(string(text))
		if edited == string(text) {
			return time.Time{}, fmt.Errorf("%s: endpoint %s not found", target, d.bed.B1.Addr4)
		}
		if err := os.WriteFile(next, []byte(edited), 0o644); err != nil {
			return time.Time{}, err
		}
		staged[next] = target
	}
	begin := time.Now()
	for next, target := range staged {
		if err := os.Rename(next, target); err != nil {
			return time.Time{}, err
		}
	}
	return begin, nil
}

// replacement swaps the addresses, and marks the slices with the time of the change as the endpoints controller
// does, from which the daemon computes its own network programming latency.
func replacement(old, next *testbed.Host, now time.Time) *strings.Replacer {
	mark := fmt.Sprintf("  annotations:\n    endpoints.kubernetes.io/last-change-trigger-time: %q\n",
		now.UTC().Format(time.RFC3339Nano))
	return strings.NewReplacer(
		fmt.Sprintf("[%s] # %s", old.Addr4, old), fmt.Sprintf("[%s] # %s", next.Addr4, next),
		fmt.Sprintf("[%q] # %s", old.Addr6, old), fmt.Sprintf("[%q] # %s", next.Addr6, next),
		"  name: web-ipv4\n", "  name: web-ipv4\n"+mark,
		"  name: web-ipv6\n", "  name: web-ipv6\n"+mark,
	)
}

// awaitReplacement asks a frontend without a pause until b2 has answered and b1 has not in the quiet requests
// that follow. It returns the time from changed to that first answer of b2, and how many requests it took.
func (d *demo) awaitReplacement(
	ctx context.Context, client *testbed.Host, dst netip.AddrPort, changed time.Time, quiet int,
) (time.Duration, int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second,
		fmt.Errorf("%s to %s still reaches b1, or not yet b2", client, dst))
	defer cancel()
	var took time.Duration
	for asked, since := 0, 0; ; {
		a, err := client.Ask(ctx, testbed.TCP, dst)
		switch {
		case ctx.Err() != nil:
			return 0, asked, context.Cause(ctx)
		case err != nil:
			return 0, asked, fmt.Errorf("lost a request during the change: %w", err)
		}
		asked++
		switch {
		case a.Pod == "b1":
			took, since = 0, 0
		case took > 0:
			since++
		case a.Pod == "b2":
			took = time.Since(changed)
		}
		if took > 0 && since == quiet {
			return took, asked, nil
		}
	}
}
