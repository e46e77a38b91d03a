//go:build e2e && linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/iptables"
	"github.com/kube-hop/kube-hop/iptables/ipsetnl"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
)

// floorSet is what kube-hop keeps of a ClusterIP Service beside IPVS: one entry of one set.
var floorSet = iptables.Set{Name: "floor", Type: iptables.HashIPPort, Family: iptables.IPv4, MaxElem: 1 << 20}

// floor measures what the kernel itself takes for the objects that kube-hop makes of the load, without Kubernetes: in
// the same guest as the subject, on a node of its own, and gone before the subject begins.
func (r *run) floor(ctx context.Context) (err error) {
	bed, err := testbed.New(ctx, testbed.Options{Nodes: []testbed.NodeSpec{{Name: "f1"}}, Outside: []string{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	for _, f := range []struct {
		figure string
		make   func(context.Context, *testbed.Host, int) (time.Duration, error)
	}{{result.FloorBatch, floorBatch}, {result.FloorSingle, floorSingle}} {
		took, err := f.make(ctx, bed.Host("f1"), r.services)
		if err != nil {
			return err
		}
		if err := r.note(f.figure, took.Seconds()); err != nil {
			return err
		}
	}
	return nil
}

// floorBatch uses the writers that kube-hop uses.
func floorBatch(ctx context.Context, node *testbed.Host, n int) (took time.Duration, err error) {
	err = node.Do(func() error {
		table, err := ipvsnl.Open(ipvsnl.Options{})
		if err != nil {
			return err
		}
		defer table.Close()
		sets, err := ipsetnl.Open()
		if err != nil {
			return err
		}
		if err := sets.Ensure(ctx, []iptables.Set{floorSet}); err != nil {
			return errors.Join(err, sets.Close())
		}
		onIPVS, onSets := floorOps(n)
		begin := time.Now()
		failedIPVS, failedSets := table.Apply(ctx, onIPVS), sets.Apply(ctx, onSets)
		took = time.Since(begin)
		if len(failedIPVS)+len(failedSets) > 0 {
			err = fmt.Errorf("floor: %d operations on IPVS and %d on sets failed", len(failedIPVS), len(failedSets))
		}
		return errors.Join(err, flushIPVS(), sets.Destroy(ctx, []iptables.Set{floorSet}), sets.Close())
	})
	return took, err
}

// floorOps returns the operations for the whole load.
func floorOps(n int) (onIPVS []ipvs.Op, onSets []iptables.SetOp) {
	for i := range n {
		k := ipvs.Key{Addr: clusterIP(i), Port: servicePort, Proto: ipvs.TCP}
		onSets = append(onSets, iptables.SetOp{Set: floorSet.Name, Entry: iptables.Entry{
			Prefix: netip.PrefixFrom(k.Addr, k.Addr.BitLen()), Proto: uint8(k.Proto), Port: k.Port,
		}})
		onIPVS = append(onIPVS, ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: ipvs.Config{Scheduler: "rr"}})
		for e := range endpoints {
			d := ipvs.Dest{Addr: floorEndpoint(i, e), Port: podPort}
			onIPVS = append(onIPVS, ipvs.Op{Verb: ipvs.AddReal, Key: k, Real: ipvs.RealServer{Dest: d, Weight: 1}})
		}
	}
	return onIPVS, onSets
}

func floorEndpoint(i, e int) netip.Addr { return nth(endpointRange, i*(endpoints+rounds)+e+1) }

// floorSingle sends one request for each object and waits for its answer, as the common libraries do.
func floorSingle(ctx context.Context, node *testbed.Host, n int) (took time.Duration, err error) {
	err = node.Do(func() error {
		handle, err := libipvs.New("")
		if err != nil {
			return err
		}
		defer handle.Close()
		nf, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer nf.Close()
		sets, err := ipsetnl.Open()
		if err != nil {
			return err
		}
		if err := sets.Ensure(ctx, []iptables.Set{floorSet}); err != nil {
			return errors.Join(err, sets.Close())
		}
		begin := time.Now()
		for i := 0; i < n && err == nil; i++ {
			err = addSingly(handle, nf, i)
		}
		took = time.Since(begin)
		return errors.Join(err, handle.Flush(), sets.Destroy(ctx, []iptables.Set{floorSet}), sets.Close())
	})
	return took, err
}

func addSingly(handle *libipvs.Handle, nf *netlink.Handle, i int) error {
	ip, proto, port := clusterIP(i).AsSlice(), uint8(unix.IPPROTO_TCP), uint16(servicePort)
	s := &libipvs.Service{
		Address: ip, Protocol: unix.IPPROTO_TCP, Port: port, SchedName: "rr", AddressFamily: unix.AF_INET, Netmask: 0xffffffff,
	}
	if err := handle.NewService(s); err != nil {
		return fmt.Errorf("floor: virtual server %d: %w", i, err)
	}
	for e := range endpoints {
		d := &libipvs.Destination{Address: floorEndpoint(i, e).AsSlice(), Port: podPort, Weight: 1, AddressFamily: unix.AF_INET}
		if err := handle.NewDestination(s, d); err != nil {
			return fmt.Errorf("floor: real server %d of virtual server %d: %w", e, i, err)
		}
	}
	if err := nf.IpsetAdd(floorSet.Name, &netlink.IPSetEntry{IP: ip, Protocol: &proto, Port: &port}); err != nil {
		return fmt.Errorf("floor: set entry %d: %w", i, err)
	}
	return nil
}

// flushIPVS removes all virtual servers of the calling thread's namespace.
func flushIPVS() error {
	handle, err := libipvs.New("")
	if err != nil {
		return err
	}
	defer handle.Close()
	return handle.Flush()
}
