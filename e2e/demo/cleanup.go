//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// showVirtualServers prints IPVS's own view.
func (d *demo) showVirtualServers(ctx context.Context) error {
	out, err := tool(ctx, d.bed.N1, "ipvsadm", "-Ln")
	if errors.Is(err, exec.ErrNotFound) {
		fmt.Fprintln(d.out, "  ipvsadm is not installed here")
		return nil
	}
	if err != nil && d.mode == "iptables" { // a kernel without IPVS is why one picks that mode
		fmt.Fprintln(d.out, "  no IPVS here:", err)
		return nil
	}
	fmt.Fprint(d.out, indent(out))
	return err
}

// cleanup runs the daemon's own cleanup and looks at everything it could have forgotten.
func (d *demo) cleanup(ctx context.Context) error {
	var errs []error
	for _, n := range d.bed.Nodes() {
		out, err := n.Command(ctx, d.binary, "cleanup").CombinedOutput()
		if err != nil {
			return fmt.Errorf("kube-hop cleanup on %s: %w\n%s", n, err, out)
		}
		errs = append(errs, d.checkNothingLeft(ctx, n))
	}
	// With the rules gone, what goes to a ClusterIP is lost or refused.
	for _, client := range []*testbed.Host{d.bed.A1, d.bed.B1} {
		if a, err := client.Ask(ctx, testbed.TCP, clusterIPs[0], testbed.Timeout(500*time.Millisecond)); err == nil {
			errs = append(errs, fmt.Errorf("%s still answers %s at %s", a.Pod, client, clusterIPs[0]))
		}
	}
	return errors.Join(errs...)
}

// trace is one place to look for remains: a tool, and what no line of its output may have.
type trace struct {
	command []string
	foreign func(line string) bool
}

func traces() []trace {
	ours := func(line string) bool {
		return strings.Contains(line, "KUBE-HOP") || strings.Contains(line, "KUBE-MARK-MASQ") ||
			strings.Contains(line, "KUBE-POSTROUTING")
	}
	return []trace{
		{[]string{"ipvsadm", "-Ln"}, func(line string) bool {
			return slices.ContainsFunc([]string{"TCP ", "UDP ", "SCTP ", "FWM "}, func(p string) bool {
				return strings.HasPrefix(line, p)
			})
		}},
		{[]string{"iptables-save"}, ours},
		{[]string{"ip6tables-save"}, ours},
		{[]string{"ipset", "list", "-n"}, func(line string) bool { return line != "" }},
		{[]string{"nft", "list", "tables"}, func(line string) bool { return strings.Contains(line, "kube") }},
	}
}

// checkNothingLeft fails if any tool, or the list of links, shows something of the daemon's.
func (d *demo) checkNothingLeft(ctx context.Context, n *testbed.Host) error {
	var errs []error
	for _, t := range traces() {
		name := strings.Join(t.command, " ")
		out, err := tool(ctx, n, t.command...)
		switch {
		case errors.Is(err, exec.ErrNotFound):
			fmt.Fprintf(d.out, "  %s: %s is not installed, not checked\n", n, t.command[0])
			continue
		case err != nil && d.mode == "iptables" && t.command[0] == "ipvsadm":
			continue // no IPVS, nothing left in it
		case err != nil:
			errs = append(errs, err)
			continue
		}
		left := slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return !t.foreign(line) })
		if len(left) > 0 {
			errs = append(errs, fmt.Errorf("%s: %s still shows\n%s", n, name, indent(strings.Join(left, "\n"))))
			continue
		}
		fmt.Fprintf(d.out, "  %s: %s shows nothing of kube-hop\n", n, name)
	}
	links, err := n.Links()
	if slices.Contains(links, "kube-ipvs0") {
		err = errors.Join(err, fmt.Errorf("%s: device kube-ipvs0 is left", n))
	}
	if err == nil {
		fmt.Fprintf(d.out, "  %s: links are %s\n", n, strings.Join(links, ", "))
	}
	return errors.Join(append(errs, err)...)
}

// tool runs a command on a node and returns its output.
func tool(ctx context.Context, n *testbed.Host, command ...string) (string, error) {
	out, err := n.Command(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s on %s: %w\n%s", strings.Join(command, " "), n, err, out)
	}
	return string(out), nil
}

// indent sets a text apart from the demo's own lines.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ") + "\n"
}
