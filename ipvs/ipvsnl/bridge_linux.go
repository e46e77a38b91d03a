package ipvsnl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

const bridgeSysctls = "net/bridge/bridge-nf-call-"

var errBridgeFilter = errors.New("it is for the node's owner to change, because it concerns all bridges")

// BridgeProblems reports what keeps Services from working between two pods on one bridge: the answer of a pod whose
// packets the bridge does not show to netfilter never meets IPVS, and arrives from the pod's address instead of the
// Service's. A node without a bridge has no problem, whatever its settings.
func (t *Table) BridgeProblems(ctx context.Context) ([]Problem, error) {
	problems := bridgeSettings("/proc/sys")
	if len(problems) == 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("bridges: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var links []netlink.Link
	err := retryDump(func() (err error) {
		links, err = t.routes.LinkList()
		return err //nolint:wrapcheck // right below
	})
	if err != nil {
		return nil, fmt.Errorf("bridges: %w", err)
	}
	for _, l := range links {
		if l.Type() == "bridge" {
			return problems, nil
		}
	}
	return nil, nil
}

// bridgeSettings returns the settings that are not what bridges need.
func bridgeSettings(root string) []Problem {
	var out []Problem
	for _, name := range []string{"iptables", "ip6tables"} {
		path := bridgeSysctls + name
		found, err := os.ReadFile(filepath.Join(root, path))
		value := strings.TrimSpace(string(found))
		p := Problem{
			Path: path, Found: value, Wanted: "1", Err: errBridgeFilter,
			Why: "pods on one bridge reach each other through Services only if the bridge shows their packets to netfilter",
		}
		switch {
		case errors.Is(err, os.ErrNotExist):
			p.Found, p.Err = "absent", errors.New(`the module br_netfilter is not loaded, load it with "modprobe br_netfilter"`)
		case err != nil || value == "1":
			continue
		}
		out = append(out, p)
	}
	return out
}
