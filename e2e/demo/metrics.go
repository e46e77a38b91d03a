//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// scrape returns the sum of every series of each metric name in the node's /metrics.
func scrape(ctx context.Context, n *testbed.Host) (map[string]float64, error) {
	text, err := fetch(ctx, n, "http://127.0.0.1:10249/metrics")
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", n, err)
	}
	sums := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if end < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line[:end], "{")
		if v, err := strconv.ParseFloat(line[end+1:], 64); err == nil {
			sums[name] += v
		}
	}
	return sums, lines.Err()
}

// reportMetrics prints what the daemon on n1 itself measured since before. Absent metrics are no fault.
func (d *demo) reportMetrics(ctx context.Context, before map[string]float64) {
	after, err := scrape(ctx, d.bed.N1)
	if err != nil {
		fmt.Fprintln(d.out, " ", err)
		return
	}
	for _, m := range []struct{ name, says string }{
		{"kubeproxy_network_programming_duration_seconds", "from the slice's change to the kernel"},
		{"kubeproxy_sync_proxy_rules_duration_seconds", "per sync"},
	} {
		count := after[m.name+"_count"] - before[m.name+"_count"]
		if count <= 0 {
			fmt.Fprintf(d.out, "  %s: no observation\n", m.name)
			continue
		}
		mean := (after[m.name+"_sum"] - before[m.name+"_sum"]) / count
		fmt.Fprintf(d.out, "  daemon on n1: %.1f ms %s (%s, mean of %.0f)\n", mean*1000, m.says, m.name, count)
	}
}
