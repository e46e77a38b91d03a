package config

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func parse(t *testing.T, args ...string) (Config, error) {
	t.Helper()
	var f Flags
	fs := pflag.NewFlagSet("kube-hop", pflag.ContinueOnError)
	f.Add(fs)
	if err := fs.Parse(args); err != nil {
		return Config{}, err
	}
	return f.RunConfig()
}

func TestDefaultsAreValid(t *testing.T) {
	c, err := parse(t, "--hostname-override= Node-A ")
	if err != nil {
		t.Fatal(err)
	}
	if c.Proxier.NodeName != "node-a" {
		t.Errorf("node name is %q, want it trimmed and in lower case", c.Proxier.NodeName)
	}
	if c.HealthAddr.String() != "0.0.0.0:10256" || c.MetricsAddr.String() != "127.0.0.1:10249" {
		t.Errorf("servers listen on %s and %s, not where kube-proxy's do", c.HealthAddr, c.MetricsAddr)
	}
	if c.Proxier.SyncPeriod != 30*time.Second || c.Proxier.Render.Mark() != 0x4000 || c.Proxier.Render.Scheduler != "rr" {
		t.Errorf("defaults differ from kube-proxy's: %+v", c.Proxier)
	}
}

// TestProblemsNameFlagValueAndWhatIsAllowed: a wrong value says what it is, and what it could be.
func TestProblemsNameFlagValueAndWhatIsAllowed(t *testing.T) {
	for _, tc := range []struct{ args, flag, value, allowed string }{
		{"--ipvs-scheduler=fastest", "--ipvs-scheduler", "fastest", "rr"},
		{"--iptables-masquerade-bit=32", "--iptables-masquerade-bit", "32", "0 to 31"},
		{"--cluster-cidr=10.0.0.0/8,10.1.0.0/16", "--cluster-cidr", "10.0.0.0/8,10.1.0.0/16", "one of each family"},
		{"--cluster-cidr=pods", "--cluster-cidr", "pods", "CIDR"},
		{"--detect-local-mode=Magic", "--detect-local-mode", "Magic", "ClusterCIDR"},
		{"--detect-local-mode=BridgeInterface", "--pod-bridge-interface", "", "bridge"},
		{"--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix", "", "interface names"},
		{"--nodeport-addresses=primary,primary", "--nodeport-addresses", "primary", "once"},
		{"--nodeport-addresses=node", "--nodeport-addresses", "node", "CIDR"},
		{"--ipvs-sync-period=0s", "--ipvs-sync-period", "0s", "greater than 0"},
		{"--ipvs-min-sync-period=1m", "--ipvs-min-sync-period", "1m0s", "0 to"},
		{"--ipvs-drain-timeout=-1s", "--ipvs-drain-timeout", "-1s", "0 or more"},
		{"--ipvs-tcp-timeout=-1s", "--ipvs-tcp-timeout", "-1s", "0, or"},
		{"--ipvs-tcpfin-timeout=10ms", "--ipvs-tcpfin-timeout", "10ms", "1s"},
		{"--ipvs-udp-timeout=1000h", "--ipvs-udp-timeout", "1000h", "596h"},
		{"--conntrack-tcp-timeout-established=-1s", "--conntrack-tcp-timeout-established", "-1s", "0, or"},
		{"--conntrack-max-per-core=-1", "--conntrack-max-per-core", "-1", "0 or more"},
		{"--conntrack-min=-1", "--conntrack-min", "-1", "0 or more"},
		{"--ipvs-exclude-cidrs=10.0.0.0/40", "--ipvs-exclude-cidrs", "10.0.0.0/40", "CIDR"},
		{"--port-only-cidrs=203.0.113.7", "--port-only-cidrs", "203.0.113.7", "CIDR"},
		{"--healthz-bind-address=here", "--healthz-bind-address", "here", "IP"},
		{"--metrics-bind-address=127.0.0.1:0", "--metrics-bind-address", "127.0.0.1:0", "1 to 65535"},
		{"--from=/etc --kubeconfig=/k", "--from", "/etc", "instead of"},
		{"--proxy-mode=nftables", "--proxy-mode", "nftables", "ipvs"},
	} {
		_, err := parse(t, strings.Fields(tc.args)...)
		if err == nil {
			t.Errorf("%s was accepted", tc.args)
			continue
		}
		for _, part := range []string{tc.flag, tc.value, tc.allowed} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", tc.args, err, part)
			}
		}
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, err := parse(t, "--ipvs-scheduler=a", "--proxy-mode=b", "--ipvs-sync-period=-1s")
	for _, flag := range []string{"--ipvs-scheduler", "--proxy-mode", "--ipvs-sync-period"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
}

func FuzzFlags(f *testing.F) {
	f.Add("10.0.0.0/8,fd00::/8", "primary,10.0.0.0/8", "0.0.0.0:1")
	f.Add(",", " , ", "[::1]")
	f.Add("::ffff:10.0.0.0/104", "all", "::")
	f.Fuzz(func(t *testing.T, clusterCIDR, nodePorts, bind string) {
		flags := Flags{
			Hostname: "n", ClusterCIDR: clusterCIDR, NodePortAddresses: strings.Split(nodePorts, ","), HealthzBind: bind,
			Scheduler: "rr", ProxyMode: "ipvs", SyncPeriod: 1, ConfigSync: 1,
		}
		c, err := flags.RunConfig()
		if err != nil {
			return
		}
		for _, p := range append(c.Proxier.Render.Local.CIDRs, c.Proxier.NodePorts.CIDRs...) {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
				t.Errorf("%q %q gave the range %s, which is not in canonical form", clusterCIDR, nodePorts, p)
			}
		}
		if bind != "" && !c.HealthAddr.IsValid() {
			t.Errorf("%q was accepted, but gives no address", bind)
		}
	})
}
