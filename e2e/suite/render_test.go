//go:build e2e && linux

package suite

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/ipvs"
)

// nobody has no privileges at all.
const nobody = 65534

// TestRender: anybody can print the state from the folder, and it is what the daemon has programmed.
func TestRender(t *testing.T) {
	c := shared(t)
	n1 := c.nodes[0]
	m := newService("render", 60, c.A2, c.B2)
	c.apply(t, m)
	got := virtualServers(n1.render(t))
	want := n1.virtualText(t)
	if d := cmp.Diff(want, got); d != "" || len(got) < 24 {
		t.Errorf("virtual servers (-kernel +render), %d rendered:\n%s", len(got), d)
	}
	var out struct {
		VirtualServers []struct{ RealServers []any }
		Local          []any
		Sets           map[string][]string
	}
	text := n1.render(t, "--output", "json")
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	if len(out.VirtualServers) != len(got) || len(out.Local) == 0 || len(out.Sets) == 0 {
		t.Errorf("JSON has %d virtual servers, %d local, %d sets; text has %d virtual servers",
			len(out.VirtualServers), len(out.Local), len(out.Sets), len(got))
	}
}

// publicCopy copies a program to where everybody may run it: a checkout below a home folder is not such a place.
func publicCopy(t *testing.T, program string) string {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "kube-hop-render-") //nolint:usetesting // that of the test may be below a home folder
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	public := filepath.Join(dir, "kube-hop")
	if err := errors.Join(os.WriteFile(public, data, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return public
}

// render runs kube-hop render for the node as an unprivileged user and returns what it printed.
func (n *node) render(t *testing.T, args ...string) string {
	t.Helper()
	cmd := n.Command(t.Context(), publicCopy(t, os.Getenv("KUBE_HOP")), append([]string{
		"render", "--from", n.folder, "--node", n.Name, "--cluster-cidr", "10.244.0.0/16,fd24::/48",
	}, args...)...)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("render: %v\n%s", err, out)
	}
	return string(out)
}

// virtualServers returns the virtual servers of a rendered text with their real servers, each as one string.
func virtualServers(text string) []string {
	var out []string
	for l := range strings.SplitSeq(text, "\n") {
		switch {
		case strings.HasPrefix(l, "FWM "), strings.HasPrefix(l, "TCP "), strings.HasPrefix(l, "UDP "), strings.HasPrefix(l, "SCTP "):
			out = append(out, l)
		case strings.HasPrefix(l, "  ") && len(out) > 0:
			out[len(out)-1] += "\n" + l
		}
	}
	return out
}

// virtualText prints the kernel's virtual servers in the same form, without node ports on the pod bridge: of the
// node's addresses, render knows those of the Node object alone.
func (n *node) virtualText(t *testing.T) []string {
	t.Helper()
	state := n.dump(t)
	keys := make([]ipvs.Key, 0, len(state.Virtual))
	for k := range state.Virtual {
		if k.Addr != n.Gateway4 && k.Addr != n.Gateway6 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, ipvs.Key.Compare)
	var out []string
	for _, k := range keys {
		text := k.String() + " " + state.Virtual[k].Config.String()
		for _, r := range state.Virtual[k].Real {
			text += "\n  " + r.Dest.String() + " masq weight=1"
			if r.Weight != 1 {
				t.Errorf("%s: %s has weight %d", k, r.Dest, r.Weight)
			}
		}
		out = append(out, text)
	}
	return out
}
