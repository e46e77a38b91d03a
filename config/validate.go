package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// The ports of kube-proxy's servers.
const (
	healthPort  = 10256
	metricsPort = 10249
)

// Config checks the flags and returns the configuration, or every problem found, each with the flag, its value and
// what is allowed.
func (f Flags) Config() (Config, error) {
	v := &validator{}
	c := Config{
		From: f.From, Kubeconfig: f.Kubeconfig, Master: f.Master, QPS: f.QPS, Burst: f.Burst,
		ContentType: f.ContentType, Resync: f.ConfigSync, Profiling: f.Profiling,
		HealthAddr:  v.listenAddress("--healthz-bind-address", f.HealthzBind, healthPort),
		MetricsAddr: v.listenAddress("--metrics-bind-address", f.MetricsBind, metricsPort),
		Estimation:  f.Estimation,
		Timeouts:    Timeouts{TCP: f.TCPTimeout, TCPFin: f.TCPFinTimeout, UDP: f.UDPTimeout},
		Conntrack: Conntrack{
			MaxPerCore: f.ConntrackMaxPerCore, Min: f.ConntrackMin,
			TCPEstablished: f.ConntrackTCPEstablished, TCPCloseWait: f.ConntrackTCPCloseWait,
			UDP: f.ConntrackUDP, UDPStream: f.ConntrackUDPStream, TCPBeLiberal: f.ConntrackTCPBeLiberal,
		},
		Proxier: proxier.Config{
			NodeName:      v.nodeName(f.Hostname),
			Render:        f.render(v),
			NodePorts:     v.nodePortAddresses(f.NodePortAddresses),
			MinSyncPeriod: f.MinSync, SyncPeriod: f.SyncPeriod, DrainTimeout: f.DrainTimeout,
			ExcludeCIDRs: v.cidrs("--ipvs-exclude-cidrs", f.ExcludeCIDRs),
		},
	}
	v.check(f.From == "" || f.Kubeconfig == "" && f.Master == "", "--from", f.From, "a folder instead of --kubeconfig and --master, not with them")
	v.check(f.Burst >= 0, "--kube-api-burst", f.Burst, "0 or more")
	return c, errors.Join(v.problems...)
}

// RunConfig is Config with the checks that only a running daemon needs.
func (f Flags) RunConfig() (Config, error) {
	c, err := f.Config()
	v := &validator{}
	v.check(f.SyncPeriod > 0, "--ipvs-sync-period", f.SyncPeriod, "a time greater than 0")
	v.check(f.MinSync >= 0 && f.MinSync <= f.SyncPeriod, "--ipvs-min-sync-period", f.MinSync, "0 to --ipvs-sync-period")
	v.check(f.DrainTimeout >= 0, "--ipvs-drain-timeout", f.DrainTimeout, "0 or more")
	f.checkTimeouts(v)
	v.check(f.ConfigSync > 0, "--config-sync-period", f.ConfigSync, "a time greater than 0")
	return c, errors.Join(append([]error{err}, v.problems...)...)
}

// longestTimeout is what the kernel takes: INT_MAX timer ticks, at most 1000 a second.
const longestTimeout = (1<<31 - 1) / 1000 * time.Second

func (f Flags) checkTimeouts(v *validator) {
	for _, t := range []struct {
		flag  string
		value time.Duration
	}{
		{"--ipvs-tcp-timeout", f.TCPTimeout},
		{"--ipvs-tcpfin-timeout", f.TCPFinTimeout},
		{"--ipvs-udp-timeout", f.UDPTimeout},
		{"--conntrack-tcp-timeout-established", f.ConntrackTCPEstablished},
		{"--conntrack-tcp-timeout-close-wait", f.ConntrackTCPCloseWait},
		{"--conntrack-udp-timeout", f.ConntrackUDP},
		{"--conntrack-udp-timeout-stream", f.ConntrackUDPStream},
	} {
		ok := t.value == 0 || t.value >= time.Second && t.value <= longestTimeout
		v.check(ok, t.flag, t.value, "0, or 1s to "+longestTimeout.String())
	}
	v.check(f.ConntrackMaxPerCore >= 0, "--conntrack-max-per-core", f.ConntrackMaxPerCore, "0 or more")
	v.check(f.ConntrackMin >= 0, "--conntrack-min", f.ConntrackMin, "0 or more")
}

func (f Flags) render(v *validator) render.Config {
	v.check(f.ProxyMode == "ipvs" || f.ProxyMode == "auto", "--proxy-mode", f.ProxyMode, "ipvs or auto")
	v.check(ipvs.HasScheduler(f.Scheduler), "--ipvs-scheduler", f.Scheduler, "one of "+strings.Join(ipvs.Schedulers(), ", "))
	v.check(f.MasqueradeBit >= 0 && f.MasqueradeBit <= 31, "--iptables-masquerade-bit", f.MasqueradeBit, "0 to 31")
	return render.Config{
		Scheduler: f.Scheduler, MasqueradeAll: f.MasqueradeAll, MasqueradeBit: uint(f.MasqueradeBit) & 31, //nolint:gosec // checked above
		Local: f.detector(v), TCPBeLiberal: f.ConntrackTCPBeLiberal, NFTables: true, IPv4: true, IPv6: true,
		Loopback: f.LocalhostNodePorts, PortOnly: v.cidrs("--port-only-cidrs", f.PortOnlyCIDRs),
	}
}

// detector returns how local pods are told.
func (f Flags) detector(v *validator) render.Detector {
	switch f.DetectLocalMode {
	case DetectClusterCIDR, "":
		return render.Detector{CIDRs: v.clusterCIDR(f.ClusterCIDR)}
	case DetectNodeCIDR:
		return render.Detector{NodeCIDR: true}
	case DetectBridge:
		v.check(f.PodBridgeInterface != "", "--pod-bridge-interface", "", "the name of a bridge")
		return render.Detector{Interface: f.PodBridgeInterface}
	case DetectPrefix:
		v.check(f.PodInterfacePrefix != "", "--pod-interface-name-prefix", "", "the start of interface names")
		return render.Detector{Interface: f.PodInterfacePrefix + "+"}
	default:
		v.check(false, "--detect-local-mode", f.DetectLocalMode, "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix")
		return render.Detector{}
	}
}

// validator collects problems, so that all are reported at once.
type validator struct {
	problems []error
}

func (v *validator) check(ok bool, flag string, value any, allowed string) {
	if d, is := value.(time.Duration); is {
		value = d.String()
	}
	if !ok {
		v.problems = append(v.problems, fmt.Errorf("%s: %q is not allowed: must be %s", flag, fmt.Sprint(value), allowed))
	}
}

func (v *validator) nodeName(override string) string {
	name := strings.ToLower(strings.TrimSpace(override))
	if name != "" {
		return name
	}
	host, err := os.Hostname()
	v.check(err == nil && host != "", "--hostname-override", override, "given, since the host has no name")
	return strings.ToLower(strings.TrimSpace(host))
}

func (v *validator) listenAddress(flag, value string, port uint16) netip.AddrPort {
	if value == "" {
		return netip.AddrPort{}
	}
	if a, err := netip.ParseAddr(value); err == nil {
		return netip.AddrPortFrom(a, port)
	}
	ap, err := netip.ParseAddrPort(value)
	v.check(err == nil && ap.Port() != 0, flag, value, "an IP address or IP:port with a port from 1 to 65535")
	return ap
}

func (v *validator) cidrs(flag string, values []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range values {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		ok := err == nil && !p.Addr().Is4In6() // ::ffff:a.b.c.d is IPv4 in disguise, and would match no packet
		v.check(ok, flag, s, "a CIDR such as 192.0.2.0/24")
		if ok {
			out = append(out, p.Masked())
		}
	}
	return out
}

// clusterCIDR keeps the first range of each family, as kube-proxy does.
func (v *validator) clusterCIDR(value string) []netip.Prefix {
	if value == "" {
		return nil
	}
	all := v.cidrs("--cluster-cidr", strings.Split(value, ","))
	v.check(len(all) <= 2 && (len(all) < 2 || all[0].Addr().Is4() != all[1].Addr().Is4()), "--cluster-cidr", value, "one CIDR, or one of each family")
	return all
}

func (v *validator) nodePortAddresses(values []string) render.NodePortAddresses {
	var out render.NodePortAddresses
	var cidrs []string
	for _, s := range values {
		switch strings.TrimSpace(s) {
		case "primary":
			v.check(!out.Primary, "--nodeport-addresses", s, "given once")
			out.Primary = true
		case "all":
			cidrs = append(cidrs, "0.0.0.0/0", "::/0")
		case "localhost":
			cidrs = append(cidrs, "127.0.0.0/8", "::1/128")
		default:
			cidrs = append(cidrs, s)
		}
	}
	out.CIDRs = v.cidrs("--nodeport-addresses", cidrs)
	return out
}
