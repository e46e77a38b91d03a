package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/config"
	"github.com/kube-hop/kube-hop/conntrack/ctnl"
	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/ipsetnl"
	"github.com/kube-hop/kube-hop/iptables/iptexec"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/loopback/sockhook"
	"github.com/kube-hop/kube-hop/nftables/nftnl"
	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// kernel is the real dataplane, with what has to be closed.
type kernel struct {
	proxier.Dataplane
	table  *ipvsnl.Table
	sets   *ipsetnl.Sets
	nft    *nftnl.Tables   // nil where the kernel has no nf_tables
	looped *sockhook.Table // nil if the kernel cannot do it
}

// openKernel opens the edges to the kernel. A family whose tools are missing is left out with one log line; without
// any family it fails. What the kernel cannot do is noted in the configuration.
func openKernel(ctx context.Context, c *render.Config) (*kernel, error) {
	table, err := ipvsnl.Open(ipvsnl.Options{})
	if err != nil {
		return nil, err
	}
	sets, err := ipsetnl.Open()
	if err != nil {
		table.Close()
		return nil, err
	}
	k := &kernel{table: table, sets: sets}
	k.IPVS, k.Sets, k.Rules = table, sets, map[lb.Family]iptables.Rules{}
	var errs []error
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		if f == lb.IPv6 && !hasIPv6() {
			klog.FromContext(ctx).Info("IPv6 is switched off on this node; Services get no IPv6 frontends")
			continue
		}
		rules, err := iptexec.Open(iptables.Family(f))
		if err != nil {
			errs = append(errs, err)
			klog.FromContext(ctx).Error(err, "Family left out", "family", f)
			continue
		}
		k.Rules[f] = rules
	}
	if len(k.Rules) == 0 {
		k.close()
		return nil, fmt.Errorf("no address family can be served: %w", errors.Join(errs...))
	}
	if k.looped, err = sockhook.Open(sockhook.Options{}); err != nil {
		klog.FromContext(ctx).Info("Node ports do not answer on loopback", "problem", err.Error())
	} else {
		k.Loopback = k.looped
	}
	c.Loopback = c.Loopback && k.Loopback != nil
	c.IPv4, c.IPv6 = k.Rules[lb.IPv4] != nil, k.Rules[lb.IPv6] != nil
	k.openTables(ctx, c)
	k.Flows = ctnl.Table{}
	return k, nil
}

// openTables opens nf_tables, if the kernel has all that our tables need.
func (k *kernel) openTables(ctx context.Context, c *render.Config) {
	c.NFTables = true
	nft, err := nftnl.Open()
	if err == nil {
		if err = nft.Try(ctx, render.Tables(render.Facts{}, *c)); err != nil {
			err = errors.Join(err, nft.Close())
		}
	}
	if err != nil {
		c.NFTables = false
		klog.FromContext(ctx).Info("The kernel lacks something", "problem", fmt.Sprintf("nf_tables cannot be used (%v): pods and the node see "+
			"only local endpoints at external addresses of Services with policy Local, and replies may be mixed up; "+
			`load its modules with "modprobe -a nf_tables nft_ct nft_fib_ipv4 nft_fib_ipv6" or install the kernel's extra modules package`, err))
		return
	}
	k.nft, k.NFT = nft, nft
}

func (k *kernel) close() {
	k.table.Close()
	if k.looped != nil {
		k.looped.Close()
	}
	if k.nft != nil {
		if err := k.nft.Close(); err != nil {
			klog.Background().Error(err, "Closing the nf_tables socket")
		}
	}
	if err := k.sets.Close(); err != nil {
		klog.Background().Error(err, "Closing the ipset socket")
	}
}

// hasIPv6 reports whether the network namespace has IPv6 and it is not switched off.
func hasIPv6() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && len(off) > 0 && off[0] == '0'
}

// settings returns the function that keeps the kernel's settings right. A setting that cannot be changed is logged
// once, with what to do; it does not make the node unhealthy, since traffic may well flow.
func (k *kernel) settings(c config.Config) func(context.Context) ([]string, error) {
	told := map[string]bool{}
	return func(ctx context.Context) ([]string, error) {
		changes, problems := ipvsnl.Sysctls(ipvsnl.SysctlOptions{
			IPv6:            k.Rules[lb.IPv6] != nil,
			NoEstimation:    !c.Estimation,
			TrackMaxPerCore: c.Conntrack.MaxPerCore, TrackMin: c.Conntrack.Min, TrackLiberal: c.Conntrack.TCPBeLiberal,
		})
		timeouts, more := k.table.EnsureTimeouts(ctx, timeouts(c), "")
		for _, p := range append(problems, more...) {
			if !told[p.Path] {
				told[p.Path] = true
				klog.FromContext(ctx).Info("Kernel setting is wrong and cannot be changed", "problem", p.String())
			}
		}
		var changed []string
		for _, c := range append(changes, timeouts...) {
			klog.FromContext(ctx).Info("Changed a kernel setting", "sysctl", c.String())
			changed = append(changed, c.String())
		}
		return changed, nil
	}
}

// timeouts returns what the configuration says of idle connections.
func timeouts(c config.Config) ipvsnl.Timeouts {
	return ipvsnl.Timeouts{
		TCP: c.Timeouts.TCP, TCPFin: c.Timeouts.TCPFin, UDP: c.Timeouts.UDP,
		TrackTCP: c.Conntrack.TCPEstablished, TrackCloseWait: c.Conntrack.TCPCloseWait,
		TrackUDP: c.Conntrack.UDP, TrackUDPStream: c.Conntrack.UDPStream,
	}
}

// check logs what the kernel lacks, a line each, and fails if it cannot work at all.
func check(ctx context.Context, scheduler string) error {
	var fatal error
	for _, l := range ipvsnl.Check(ctx, ipvsnl.CheckOptions{Schedulers: []string{scheduler}, IPv6: hasIPv6()}) {
		klog.FromContext(ctx).Info("The kernel lacks something", "problem", l.String())
		if l.Fatal && fatal == nil {
			fatal = errors.New(l.String())
		}
	}
	return fatal
}
