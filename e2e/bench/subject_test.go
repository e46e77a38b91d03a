//go:build e2e && linux

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

const (
	metricsAddr = "127.0.0.1:10249"
	metricsURL  = "http://" + metricsAddr + "/metrics"
)

// subject is a proxy that is measured.
type subject struct {
	name   string // as in the results
	binary string
	flags  []string // beyond those that all subjects have
}

// subjects are the proxies that can be run. kube-proxy must leave the conntrack sysctls alone: they belong to the
// machine, and a network namespace cannot write them.
func subjects() []subject {
	proxy := func(name, mode string) subject {
		return subject{name: name, binary: filepath.Join(os.Getenv("CONTROLPLANE_BIN"), "kube-proxy"), flags: []string{
			"--proxy-mode=" + mode, "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s",
			"--conntrack-tcp-timeout-close-wait=0s",
		}}
	}
	return []subject{
		{name: result.KubeHop, binary: os.Getenv("KUBE_HOP"), flags: []string{"run"}},
		proxy(result.NFTables, "nftables"), proxy(result.IPVS, "ipvs"),
	}
}

// chosenSubject is the one that BENCH_SUBJECT names.
func chosenSubject() (subject, error) {
	all := subjects()
	i := slices.IndexFunc(all, func(s subject) bool { return s.name == os.Getenv("BENCH_SUBJECT") })
	if i < 0 {
		return subject{}, fmt.Errorf("BENCH_SUBJECT=%q is not a subject", os.Getenv("BENCH_SUBJECT"))
	}
	return all[i], nil
}

// args returns the command line on a node.
func (s subject) args(node, kubeconfig string) []string {
	return slices.Concat(s.flags, []string{
		"--kubeconfig=" + kubeconfig, "--hostname-override=" + node, "--cluster-cidr=10.128.0.0/9",
		"--metrics-bind-address=" + metricsAddr, "-v=2",
	})
}

// version asks the binary.
func (s subject) version(ctx context.Context) (string, error) {
	ask := "--version"
	if s.name == result.KubeHop {
		ask = "version"
	}
	out, err := exec.CommandContext(ctx, s.binary, ask).Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", s.name, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, nil
}
