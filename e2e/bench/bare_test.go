//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
)

// bareRules is nf_tables input that makes the kernel track connections, as it does wherever something is masqueraded.
const bareRules = "table ip bare { chain post { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; }; }"

// bare measures connections where the kernel does the least that leads a virtual address to a pod, on a node without a
// proxy: what a proxy cannot do better.
func (r *run) bare(ctx context.Context) (err error) {
	goOn, err := r.cp.Pause()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, goOn()) }()
	for _, way := range []struct {
		figure string
		make   func(ctx context.Context, node *testbed.Host, virtual, pod netip.AddrPort) error
	}{
		{result.ConnectBareIPVS, bareIPVS},
		{result.ConnectTrackedIPVS, trackedIPVS},
		{result.ConnectBareNFT, bareNFT},
	} {
		if err := r.bareWay(ctx, way.figure, way.make); err != nil {
			return fmt.Errorf("%s: %w", way.figure, err)
		}
	}
	return nil
}

// bareWay measures one way on a node of its own, by turns with connections straight to the pod.
func (r *run) bareWay(ctx context.Context, figure string, prepare func(ctx context.Context, node *testbed.Host, virtual, pod netip.AddrPort) error) (err error) {
	bed, err := testbed.New(ctx, testbed.Options{
		Nodes: []testbed.NodeSpec{{Name: "n1", Pods: []string{"a1", "a2"}}}, Outside: []string{}, Timeout: answerLimit,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	if _, err := bed.A2.Serve(ctx, testbed.TCP, podPort); err != nil {
		return err
	}
	pod, virtual := netip.AddrPortFrom(bed.A2.Addr4, podPort), netip.AddrPortFrom(markerIP(), servicePort)
	if err := prepare(ctx, bed.N1, virtual, pod); err != nil {
		return err
	}
	straight, through, err := byTurns(bed.A1, r.samples, func() (time.Duration, error) { return connectOnce(pod) },
		func() (time.Duration, error) { return connectOnce(virtual) })
	if err != nil {
		return err
	}
	slices.Sort(straight)
	slices.Sort(through)
	res := result.Result{Figure: figure, Value: milliseconds(quantile(through, 0.5)), Samples: len(through)}
	if !r.count {
		res.Note = fmt.Sprintf("straight to the pod, by turns: %.3g ms", milliseconds(quantile(straight, 0.5)))
	}
	return r.noteResult(res)
}

func bareIPVS(ctx context.Context, node *testbed.Host, virtual, pod netip.AddrPort) error {
	return node.Do(func() error {
		table, err := ipvsnl.Open(ipvsnl.Options{})
		if err != nil {
			return err
		}
		defer table.Close()
		key := ipvs.Key{Addr: virtual.Addr(), Port: virtual.Port(), Proto: ipvs.TCP}
		real := ipvs.RealServer{Dest: ipvs.Dest{Addr: pod.Addr(), Port: pod.Port()}, Weight: 1}
		var errs []error
		for _, failed := range table.Apply(ctx, []ipvs.Op{
			{Verb: ipvs.AddVirtual, Key: key, Config: ipvs.Config{Scheduler: "rr"}},
			{Verb: ipvs.AddReal, Key: key, Real: real},
			{Verb: ipvs.Bind, Prefix: netip.PrefixFrom(key.Addr, key.Addr.BitLen())},
		}) {
			errs = append(errs, failed)
		}
		return errors.Join(errs...)
	})
}

func trackedIPVS(ctx context.Context, node *testbed.Host, virtual, pod netip.AddrPort) error {
	if err := bareIPVS(ctx, node, virtual, pod); err != nil {
		return err
	}
	track := func() error { return os.WriteFile("/proc/sys/net/ipv4/vs/conntrack", []byte("1"), 0) }
	return errors.Join(node.Do(track), nft(ctx, node, bareRules))
}

func bareNFT(ctx context.Context, node *testbed.Host, virtual, pod netip.AddrPort) error {
	return nft(ctx, node, bareRules+fmt.Sprintf(
		"\ntable ip bare { chain pre { type nat hook prerouting priority dstnat; ip daddr %s tcp dport %d dnat to %s; }; }",
		virtual.Addr(), virtual.Port(), pod))
}

func nft(ctx context.Context, node *testbed.Host, rules string) error {
	cmd := node.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// bareChanges makes the same changes while the subject stands still, and two bare requests to IPVS when a watcher has heard
// of one: the least that a proxy does for it, on a machine that is as busy with the API server.
func (r *run) bareChanges(ctx context.Context) (err error) {
	bed, err := testbed.New(ctx, testbed.Options{Nodes: []testbed.NodeSpec{{Name: "n1"}}, Outside: []string{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	d, err := r.watchSlices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := r.daemon.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.daemon.Signal(unix.SIGCONT)) }()
	var all []time.Duration
	err = bed.N1.Do(func() error {
		table, err := ipvsnl.Open(ipvsnl.Options{})
		if err != nil {
			return err
		}
		defer table.Close()
		all, err = r.timeBareChanges(ctx, d, table)
		return err
	})
	if err != nil {
		return err
	}
	return r.noteQuantiles(all, result.OwnBareP50, result.OwnBareP99, "")
}

func (r *run) timeBareChanges(ctx context.Context, d *deliveries, table *ipvsnl.Table) (all []time.Duration, err error) {
	key := ipvs.Key{Addr: markerIP(), Port: servicePort, Proto: ipvs.TCP}
	server := func(k int) ipvs.RealServer {
		return ipvs.RealServer{Dest: ipvs.Dest{Addr: floorEndpoint(0, k), Port: podPort}, Weight: 1}
	}
	if failed := table.Apply(ctx, []ipvs.Op{
		{Verb: ipvs.AddVirtual, Key: key, Config: ipvs.Config{Scheduler: "rr"}}, {Verb: ipvs.AddReal, Key: key, Real: server(0)},
	}); len(failed) > 0 {
		return nil, failed[0]
	}
	for begin := time.Now(); len(all) < r.plan.changes && time.Since(begin) < r.budget; {
		if err := r.rest(ctx, lull); err != nil {
			return nil, err
		}
		k, i := len(all), r.spread(len(all))
		endpoint := r.next(i)
		if err := change(ctx, r.client, i, r.round[i]); err != nil {
			return nil, err
		}
		if err := r.await(ctx, time.Millisecond, r.start, func() error { _, err := d.of(endpoint); return err }); err != nil {
			return nil, err
		}
		asked := time.Now()
		failed := table.Apply(ctx, []ipvs.Op{{Verb: ipvs.AddReal, Key: key, Real: server(k + 1)}})
		failed = append(failed, table.Apply(ctx, []ipvs.Op{{Verb: ipvs.DeleteReal, Key: key, Real: server(k)}})...)
		all = append(all, time.Since(asked))
		if len(failed) > 0 {
			return nil, failed[0]
		}
	}
	return all, nil
}
