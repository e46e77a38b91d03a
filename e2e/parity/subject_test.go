//go:build e2e && linux

package parity

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// Where every subject serves its health and its metrics.
const (
	healthPort = "10256"
	metricsURL = "http://127.0.0.1:10249/metrics"
)

// clusterCIDR is what subjects are told about the pods' addresses.
const clusterCIDR = "10.244.0.0/16,fd24::/48"

// subject is a proxy under test.
type subject struct {
	name   string // as in the results, such as kube-proxy-nftables
	binary string
	flags  []string // beyond those that all subjects have
	ipvs   bool     // it programs virtual servers
	rounds string   // its metric, by address family, that counts the rounds in which it programs; only where they are long
}

// subjects are the proxies that the tests know how to run. kube-proxy must leave the conntrack sysctls alone: they
// belong to the machine, and a network namespace cannot write them.
func subjects() []subject {
	proxy := func(mode string) subject {
		return subject{
			name: "kube-proxy-" + mode, binary: filepath.Join(os.Getenv("CONTROLPLANE_BIN"), "kube-proxy"),
			flags: []string{
				"--proxy-mode=" + mode, "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s",
				"--conntrack-tcp-timeout-close-wait=0s",
			},
			ipvs: mode == "ipvs",
		}
	}
	ipvs := proxy("ipvs")
	ipvs.rounds = "kubeproxy_sync_proxy_rules_duration_seconds_count"
	return []subject{
		{name: "kube-hop", binary: os.Getenv("KUBE_HOP"), flags: []string{"run"}, ipvs: true},
		ipvs, proxy("iptables"), proxy("nftables"),
	}
}

// chosenSubject is the one that PARITY_SUBJECT names, kube-hop if it is not set.
func chosenSubject() (subject, error) {
	name := os.Getenv("PARITY_SUBJECT")
	if name == "" {
		name = "kube-hop"
	}
	var known []string
	for _, s := range subjects() {
		if s.name == name {
			return s, nil
		}
		known = append(known, s.name)
	}
	return subject{}, fmt.Errorf("subject %q: known are %s", name, strings.Join(known, ", "))
}

// kubeHop tells whether the subject is kube-hop, for what only kube-hop has a switch for.
func (s subject) kubeHop() bool { return s.name == "kube-hop" }

// args returns the command line on a node. Further flags, as --name=value, replace earlier ones; one without a value
// only takes the earlier one away.
func (s subject) args(node *testbed.Host, kubeconfig string, more ...string) []string {
	args := slices.Concat(s.flags, []string{
		"--kubeconfig=" + kubeconfig, "--hostname-override=" + node.Name, "--cluster-cidr=" + clusterCIDR, "-v=2",
		"--metrics-bind-address=127.0.0.1:10249", "--healthz-bind-address=0.0.0.0:" + healthPort,
	})
	for _, flag := range more {
		name, value, _ := strings.Cut(flag, "=")
		args = slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, name+"=") })
		if value != "" {
			args = append(args, flag)
		}
	}
	return args
}

// version asks the binary.
func (s subject) version(ctx context.Context) (string, error) {
	ask := "--version"
	if s.kubeHop() {
		ask = "version"
	}
	out, err := exec.CommandContext(ctx, s.binary, ask).Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", s.name, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, nil
}

// cleanup is the command that removes all that the subject programmed.
func (s subject) cleanup() string {
	if s.kubeHop() {
		return s.binary + " cleanup"
	}
	return s.binary + " --cleanup"
}
