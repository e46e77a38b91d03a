package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/config"
	"github.com/kube-hop/kube-hop/conntrack/ctnl"
	"github.com/kube-hop/kube-hop/events"
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
	table    *ipvsnl.Table
	sets     *ipsetnl.Sets
	nft      *nftnl.Tables   // nil where the kernel has no nf_tables
	looped   *sockhook.Table // nil if the kernel cannot do it
	settings *settings
}

// tellSettings makes wrong kernel settings known as events too. It is called before the dataplane is used.
func (k *kernel) tellSettings(sink events.Sink) { k.settings.events = sink }

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
	k.settings = &settings{bridges: table.BridgeProblems, events: events.Discard{}}
	k.Scheduler = ipvsnl.CheckScheduler
	return k, nil
}

// openTables opens nf_tables, if the kernel has all that our tables need.
func (k *kernel) openTables(ctx context.Context, c *render.Config) {
	c.NFTables = true
	nft, err := nftnl.Open()
	if err == nil {
		all := render.Uses{Inside: render.Used, OnePacket: render.Used}
		if err = nft.Try(ctx, render.Tables(render.Facts{}, *c, all)); err != nil {
			err = errors.Join(err, nft.Close())
		}
	}
	if err != nil {
		c.NFTables = false
		klog.FromContext(ctx).Info("The kernel lacks something", "problem", fmt.Sprintf("nf_tables cannot be used (%v): pods and the node see "+
			"only local endpoints at external addresses of Services with policy Local, and replies may be mixed up; "+
			`load its modules with "modprobe -a nf_tables nft_ct nft_fib_ipv4 nft_fib_ipv6 nft_chain_nat nft_nat" or install the kernel's extra modules package`, err))
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

// settings keeps the kernel's settings right. One that is wrong and stays so is told once an episode, by a log line
// and an event on the node that say what to do; it does not make the node unhealthy, since traffic may well flow.
type settings struct {
	// sysctls sets the settings; it returns what it changed, and what is wrong and stays so.
	sysctls func(context.Context) ([]string, []ipvsnl.Problem)
	// bridges returns what bridges lack so that IPVS sees the packets between their ports.
	bridges func(context.Context) ([]ipvsnl.Problem, error)
	events  events.Sink
	told    map[string]bool // paths of the settings that are wrong
}

// ensure implements proxier.Dataplane.Sysctls.
func (s *settings) ensure(ctx context.Context) ([]string, error) {
	changed, problems := s.sysctls(ctx)
	onBridges, err := s.bridges(ctx)
	problems = append(problems, onBridges...)
	wrong := map[string]bool{}
	for _, p := range problems {
		wrong[p.Path] = true
		if s.told[p.Path] {
			continue
		}
		klog.FromContext(ctx).Info("Kernel setting is wrong and stays so", "problem", p.String())
		s.events.Report(events.Event{Part: p.Path, Reason: events.KernelSetting, Message: p.String()})
	}
	s.told = wrong
	return changed, err
}

// follow makes the settings those that the configuration asks for.
func (k *kernel) follow(c config.Config) {
	k.settings.sysctls = func(ctx context.Context) ([]string, []ipvsnl.Problem) {
		changes, problems := ipvsnl.Sysctls(ipvsnl.SysctlOptions{
			IPv6:            k.Rules[lb.IPv6] != nil,
			NoEstimation:    !c.Estimation,
			TrackMaxPerCore: c.Conntrack.MaxPerCore, TrackMin: c.Conntrack.Min, TrackLiberal: c.Conntrack.TCPBeLiberal,
		})
		timeouts, more := k.table.EnsureTimeouts(ctx, timeouts(c), "")
		var changed []string
		for _, c := range append(changes, timeouts...) {
			klog.FromContext(ctx).Info("Changed a kernel setting", "sysctl", c.String())
			changed = append(changed, c.String())
		}
		return changed, append(problems, more...)
	}
	k.Sysctls = k.settings.ensure
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
