//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// clusterIPs are those of examples/web.yaml.
var clusterIPs = []netip.AddrPort{
	netip.MustParseAddrPort("10.96.0.10:80"), netip.MustParseAddrPort("[fd96::10]:80"),
}

// frontend is one address of the Service in examples/web.yaml.
type frontend struct {
	kind string
	addr netip.AddrPort
}

// frontends returns all addresses of the Service, each kind in both families.
func (d *demo) frontends() []frontend {
	return []frontend{
		{"ClusterIP", clusterIPs[0]},
		{"NodePort", netip.AddrPortFrom(d.bed.N1.Addr4, 30080)},
		{"external IP", netip.MustParseAddrPort("198.51.100.10:80")},
		{"LoadBalancer", netip.MustParseAddrPort("203.0.113.10:80")},
		{"ClusterIP", clusterIPs[1]},
		{"NodePort", netip.AddrPortFrom(d.bed.N1.Addr6, 30080)},
		{"external IP", netip.MustParseAddrPort("[fd98::e:10]:80")},
		{"LoadBalancer", netip.MustParseAddrPort("[fd98::f:10]:80")},
	}
}

// enough requests to expect each of three endpoints among the answers.
const enough = 30

// askAll is the full table: every endpoint must answer.
func (d *demo) askAll(ctx context.Context) error {
	return d.askTable(ctx, d.requests, "a1", "a2", "b1")
}

// askTable sends n requests from every client to every frontend and prints who answered and what address the pods
// saw. It fails unless all are answered by these pods, by each if n is enough, and masqueraded as they must be.
func (d *demo) askTable(ctx context.Context, n int, pods ...string) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  CLIENT\tFRONTEND\tADDRESS\tANSWERED BY\tPODS SAW\tMEAN TIME")
	var errs []error
	for _, client := range []*testbed.Host{d.bed.A1, d.bed.N1, d.bed.Out} {
		for _, f := range d.frontends() {
			t := d.askMany(ctx, n, client, f)
			if ctx.Err() != nil {
				return errors.Join(append(errs, context.Cause(ctx), w.Flush())...)
			}
			mean := "-"
			if answers := t.N - len(t.Errors); answers > 0 {
				mean = fmt.Sprintf("%.1fms", t.Took.Seconds()*1000/float64(answers))
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\n", client, f.kind, f.addr,
				counts(t.Pods, cmp.Compare[string]), counts(t.Peers, netip.Addr.Compare), mean)
			if err := d.checkRow(client, f, t, pods); err != nil {
				errs = append(errs, fmt.Errorf("%s to %s %s: %w", client, f.kind, f.addr, err))
			}
		}
	}
	return errors.Join(append(errs, w.Flush())...)
}

// askMany fills a row. It gives up after the third failure: thirty timeouts would take longer than anyone waits.
func (d *demo) askMany(ctx context.Context, n int, client *testbed.Host, f frontend) (t testbed.Tally) {
	for range n {
		t.Add(client.Ask(ctx, testbed.TCP, f.addr))
		if ctx.Err() != nil || len(t.Errors) == 3 {
			break
		}
	}
	return t
}

// checkRow compares a row with what must be: every endpoint takes part, and only a pod at the ClusterIP keeps its
// address.
func (d *demo) checkRow(client *testbed.Host, f frontend, t testbed.Tally, pods []string) error {
	if len(t.Errors) > 0 {
		return fmt.Errorf("%d of %d requests failed, first: %w", len(t.Errors), t.N, t.Errors[0])
	}
	got := slices.Sorted(maps.Keys(t.Pods))
	if stranger := slices.ContainsFunc(got, func(p string) bool { return !slices.Contains(pods, p) }); stranger {
		return fmt.Errorf("answered by %v, want only %v", got, pods)
	}
	// Few requests to a random choice may miss an endpoint, thirty in hardly one run of a thousand.
	if t.N >= enough && len(got) < len(pods) {
		return fmt.Errorf("answered by %v, want all of %v", got, pods)
	}
	// A masqueraded connection has the node's address on the link to the pod; n1's own connections may also have
	// its InternalIP there. The pod that reaches itself is masqueraded as well.
	want := []netip.Addr{d.bed.N1.Addr4, d.bed.N1.Gateway4}
	if f.addr.Addr().Is6() {
		want = []netip.Addr{d.bed.N1.Addr6, d.bed.N1.Gateway6}
	}
	if client == d.bed.A1 && f.kind == "ClusterIP" {
		want[0] = client.Addr(f.addr.Addr())
	}
	for peer := range t.Peers {
		if !slices.Contains(want, peer) {
			return fmt.Errorf("a pod saw %s as its client, want one of %v", peer, want)
		}
	}
	return nil
}

// counts prints a tally in the order of its keys, such as "a1 10, a2 10".
func counts[K comparable](m map[K]int, compare func(a, b K) int) string {
	if len(m) == 0 {
		return "nobody"
	}
	var parts []string
	for _, k := range slices.SortedFunc(maps.Keys(m), compare) {
		parts = append(parts, fmt.Sprintf("%v %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}
