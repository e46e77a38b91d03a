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
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/nftables/nftnl"
)

// singleMost is how many Services are made with one request each at most. That takes much longer than in proportion: for
// 5,000 it was 68 s where it was 3 s for 1,000.
const singleMost = 5000

// floorSet and floorTable are for what kube-hop keeps of a ClusterIP Service beside IPVS: an entry of one set, and an
// element of nf_tables.
var (
	floorSet   = iptables.Set{Name: "floor", Type: iptables.HashIPPort, Family: iptables.IPv4, MaxElem: 1 << 20}
	floorTable = nftables.Table{Family: nftables.IPv4, Name: "floor", Sets: []nftables.Set{{Name: "floor", Key: nftables.AddrProtoPort}}}
)

// floor measures what the kernel itself takes for the objects that kube-hop makes of the load, without Kubernetes: in
// the same guest as the subject, on a node of its own, and gone before the subject begins.
func (r *run) floor(ctx context.Context) (err error) {
	bed, err := testbed.New(ctx, testbed.Options{Nodes: []testbed.NodeSpec{{Name: "f1"}}, Outside: []string{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	if _, err := floorBatch(ctx, bed.Host("f1"), 1); err != nil { // the kernel loads modules
		return err
	}
	for _, f := range []struct {
		figure string
		make   func(context.Context, *testbed.Host, int) (time.Duration, error)
	}{{result.FloorBatch, floorBatch}, {result.FloorSingle, floorSingle}} {
		if f.figure == result.FloorSingle && r.services > singleMost {
			continue
		}
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

// writers are those that kube-hop uses, in one network namespace.
type writers struct {
	table  *ipvsnl.Table
	sets   *ipsetnl.Sets
	tables *nftnl.Tables
}

func openWriters(ctx context.Context) (w writers, err error) {
	if w.table, err = ipvsnl.Open(ipvsnl.Options{}); err != nil {
		return w, err
	}
	if w.sets, err = ipsetnl.Open(); err != nil {
		return w, err
	}
	if w.tables, err = nftnl.Open(); err != nil {
		return w, err
	}
	_, err = w.tables.Ensure(ctx, []nftables.Table{floorTable})
	return w, errors.Join(err, w.sets.Ensure(ctx, []iptables.Set{floorSet}))
}

// close removes what was made, too.
func (w writers) close(ctx context.Context) error {
	w.table.Close()
	return errors.Join(
		flushIPVS(),
		w.sets.Destroy(ctx, []iptables.Set{floorSet}), w.sets.Close(),
		w.tables.Remove(ctx, []nftables.Table{floorTable}), w.tables.Close(),
	)
}

// floorBatch makes all objects with the writers that kube-hop uses.
func floorBatch(ctx context.Context, node *testbed.Host, n int) (took time.Duration, err error) {
	err = node.Do(func() error {
		w, err := openWriters(ctx)
		if err != nil {
			return err
		}
		onIPVS, onSets, onTables := floorOps(n)
		begin := time.Now()
		failed := len(w.table.Apply(ctx, onIPVS)) + len(w.sets.Apply(ctx, onSets)) + len(w.tables.Apply(ctx, onTables))
		took = time.Since(begin)
		if failed > 0 {
			err = fmt.Errorf("floor: %d operations failed", failed)
		}
		return errors.Join(err, w.close(ctx))
	})
	return took, err
}

// floorOps returns the operations for the whole load.
func floorOps(n int) (onIPVS []ipvs.Op, onSets []iptables.SetOp, onTables []nftables.Op) {
	for i := range n {
		k := ipvs.Key{Addr: clusterIP(i), Port: servicePort, Proto: ipvs.TCP}
		onSets = append(onSets, iptables.SetOp{Set: floorSet.Name, Entry: iptables.Entry{
			Prefix: netip.PrefixFrom(k.Addr, k.Addr.BitLen()), Proto: uint8(k.Proto), Port: k.Port,
		}})
		onTables = append(onTables, nftables.Op{
			Set: floorTable.ID("floor"), Key: nftables.Key{Addr: k.Addr, Proto: uint8(k.Proto), Port: k.Port},
		})
		onIPVS = append(onIPVS, ipvs.Op{Verb: ipvs.AddVirtual, Key: k, Config: ipvs.Config{Scheduler: "rr"}})
		for e := range endpoints {
			d := ipvs.Dest{Addr: floorEndpoint(i, e), Port: podPort}
			onIPVS = append(onIPVS, ipvs.Op{Verb: ipvs.AddReal, Key: k, Real: ipvs.RealServer{Dest: d, Weight: 1}})
		}
	}
	return onIPVS, onSets, onTables
}

func floorEndpoint(i, e int) netip.Addr { return nth(endpointRange, i*(endpoints+rounds)+e+1) }

// floorSingle sends one request for each object and waits for its answer, as the common libraries do. It leaves out
// nf_tables, where each request would be a transaction of its own.
func floorSingle(ctx context.Context, node *testbed.Host, n int) (took time.Duration, err error) {
	err = node.Do(func() error {
		w, err := openWriters(ctx)
		if err != nil {
			return err
		}
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
		begin := time.Now()
		for i := 0; i < n && err == nil; i++ {
			err = addSingly(handle, nf, i)
		}
		took = time.Since(begin)
		return errors.Join(err, w.close(ctx))
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
