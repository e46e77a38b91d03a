package proxier_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/nftables"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// commands are what scripts can say, beside testscript's own. testdata/README.md describes them.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"daemon": func(ts *testscript.TestScript, neg bool, args []string) {
		err := machineOf(ts).start(args)
		if neg && err != nil {
			fmt.Fprintln(ts.Stderr(), err)
			return
		}
		ts.Check(err)
		if neg {
			ts.Fatalf("daemon started, but was to fail")
		}
	},
	"apply":  apply,
	"delete": deleteObject,
	"addresses": func(ts *testscript.TestScript, _ bool, args []string) {
		var addrs []netip.Addr
		for _, a := range args {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		machineOf(ts).daemon.Tracker.SetLocalAddresses(addrs)
	},
	"labels": func(ts *testscript.TestScript, _ bool, args []string) {
		labels := map[string]string{}
		for _, a := range args[1:] {
			key, value, _ := strings.Cut(a, "=")
			labels[key] = value
		}
		machineOf(ts).daemon.Tracker.SetNodeLabels(args[0], labels)
	},
	"networks": func(ts *testscript.TestScript, _ bool, args []string) {
		var networks []netip.Prefix
		for _, a := range args {
			networks = append(networks, netip.MustParsePrefix(a))
		}
		machineOf(ts).daemon.Tracker.SetNetworks(networks)
	},
	"sync":   func(ts *testscript.TestScript, _ bool, _ []string) { m := machineOf(ts); m.settle(m.daemon.Sync) },
	"verify": func(ts *testscript.TestScript, _ bool, _ []string) { m := machineOf(ts); m.settle(m.daemon.Verify) },
	"drain":  func(ts *testscript.TestScript, _ bool, _ []string) { m := machineOf(ts); m.settle(m.drain) },
	"cleanup": func(ts *testscript.TestScript, _ bool, _ []string) {
		m := machineOf(ts)
		if m.flaky == 0 {
			ts.Check(m.daemon.Cleanup(context.Background()))
			return
		}
		for range 50 { // a person would run it again
			if m.daemon.Cleanup(context.Background()) == nil {
				return
			}
		}
		ts.Fatalf("cleanup goes on failing")
	},
	"dump": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(machineOf(ts).dump(ts.Stdout())) },
	"ops": func(ts *testscript.TestScript, _ bool, _ []string) {
		m := machineOf(ts)
		_, err := ts.Stdout().Write([]byte(m.last.String()))
		ts.Check(err)
	},
	"changes": func(ts *testscript.TestScript, _ bool, args []string) {
		if m := machineOf(ts); m.flaky == 0 && strconv.Itoa(len(m.last)) != args[0] {
			ts.Fatalf("the last step took %d kernel operations, not %s:\n%s", len(m.last), args[0], m.last)
		}
	},
	"lookups": func(ts *testscript.TestScript, _ bool, args []string) {
		if m := machineOf(ts); strconv.Itoa(m.looked) != args[0] {
			ts.Fatalf("the last step asked nf_tables for elements %d times, not %s", m.looked, args[0])
		}
	},
	"advance": func(ts *testscript.TestScript, _ bool, args []string) {
		d, err := time.ParseDuration(args[0])
		ts.Check(err)
		machineOf(ts).now = machineOf(ts).now.Add(d)
	},
	"refuse": func(ts *testscript.TestScript, _ bool, args []string) {
		m := machineOf(ts)
		m.refused = strings.Join(args, " ")
		m.flows.Fail(nil)
		if m.refuses("flows") {
			m.flows.Fail(errRefused)
		}
	},
	"rules": func(ts *testscript.TestScript, _ bool, args []string) {
		rules, _ := machineOf(ts).fake4.List(args[0], args[1])
		for _, r := range rules {
			fmt.Fprintln(ts.Stdout(), r)
		}
		if len(rules) == 0 {
			fmt.Fprintln(ts.Stdout(), "none") // no output at all would leave that of the command before
		}
	},
	"chains": func(ts *testscript.TestScript, _ bool, _ []string) {
		fmt.Fprintln(ts.Stdout(), strings.Join(machineOf(ts).tables.Chains(nftables.IPv4, "kube-hop"), " "))
	},
	"flow": func(ts *testscript.TestScript, _ bool, args []string) {
		machineOf(ts).flows.Add(flowOf(ts, args))
	},
	"expire": func(ts *testscript.TestScript, _ bool, _ []string) {
		machineOf(ts).daemon.ExpireFlows(context.Background())
	},
	"flows": func(ts *testscript.TestScript, _ bool, _ []string) {
		for _, f := range machineOf(ts).flows.Flows() {
			if f.Proto != lb.UDP {
				fmt.Fprint(ts.Stdout(), strings.ToLower(f.Proto.String()), " ")
			}
			fmt.Fprintln(ts.Stdout(), f.Client, f.Dst, f.Server)
		}
	},
	"events": func(ts *testscript.TestScript, _ bool, _ []string) {
		out := ts.Stdout() // asked for in any case, or what was printed before would stay
		for _, e := range machineOf(ts).events.Take() {
			fmt.Fprintln(out, e)
		}
	},
	"kernel": changeKernel,
	"conns":  setConns,
	"metric": checkMetric,
	"healthchecks": func(ts *testscript.TestScript, _ bool, _ []string) {
		out, health := ts.Stdout(), machineOf(ts).health
		for _, n := range slices.SortedFunc(maps.Keys(health), lb.Name.Compare) {
			for _, c := range health[n] {
				where := "all addresses"
				if c.Addrs != nil {
					where = fmt.Sprint(c.Addrs)
				}
				fmt.Fprintf(out, "%s %s port %d at %s: %d local endpoints\n", n, c.Family, c.Port, where, c.Local)
			}
		}
	},
	"healthy": func(ts *testscript.TestScript, neg bool, _ []string) {
		if ok, _ := machineOf(ts).daemon.Status.Healthy(); ok == neg {
			ts.Fatalf("healthy is %v", ok)
		}
	},
}

// flowOf parses "[tcp|sctp] CLIENT VIP:PORT SERVER:PORT", and a final "unanswered".
func flowOf(ts *testscript.TestScript, args []string) conntrack.Flow {
	f := conntrack.Flow{Proto: lb.UDP}
	if p, other := map[string]lb.Proto{"tcp": lb.TCP, "sctp": lb.SCTP}[args[0]]; other {
		f.Proto, args = p, args[1:]
	}
	var at [3]netip.AddrPort
	for i := range at {
		var err error
		at[i], err = netip.ParseAddrPort(args[i])
		ts.Check(err)
	}
	f.Client, f.Dst, f.Server, f.Unanswered = at[0], at[1], at[2], len(args) > 3 && args[3] == "unanswered"
	return f
}

func apply(ts *testscript.TestScript, _ bool, args []string) {
	m, s := machineOf(ts), load(ts, args)
	t := m.daemon.Tracker
	for _, o := range named(ts, args) {
		// An object that is not to be served, or not any more, is one that the source does not hand over.
		deleteObject(ts, false, []string{o.kind, o.name.String()})
	}
	for _, o := range s.Services {
		t.SetService(o)
		m.objects.Services = replace(m.objects.Services, o, func(s lb.Service) lb.Name { return s.Name })
	}
	for _, o := range s.Slices {
		t.SetEndpointSlice(o)
		m.objects.Slices = replace(m.objects.Slices, o, func(s lb.EndpointSlice) lb.Name { return s.Name })
	}
	if len(s.Node.Addresses) > 0 {
		m.objects.Node = s.Node
		t.SetNode(s.Node)
	}
	if len(s.ServiceCIDRs) > 0 {
		m.objects.ServiceCIDRs = s.ServiceCIDRs
		t.SetServiceCIDRs(s.ServiceCIDRs)
	}
}

type namedObject struct {
	kind string
	name lb.Name
}

// named returns the Services and EndpointSlices of YAML files that are not served.
func named(ts *testscript.TestScript, files []string) []namedObject {
	var out []namedObject
	s := load(ts, files)
	for _, f := range files {
		for doc := range strings.SplitSeq(ts.ReadFile(f), "\n---\n") {
			var o metav1.PartialObjectMetadata
			ts.Check(yaml.Unmarshal([]byte(doc), &o))
			n := lb.Name{Namespace: cmp.Or(o.Namespace, "default"), Name: o.Name}
			served := slices.ContainsFunc(s.Services, func(s lb.Service) bool { return s.Name == n }) && o.Kind == "Service" ||
				slices.ContainsFunc(s.Slices, func(s lb.EndpointSlice) bool { return s.Name == n }) && o.Kind == "EndpointSlice"
			if !served && (o.Kind == "Service" || o.Kind == "EndpointSlice") {
				out = append(out, namedObject{strings.ToLower(o.Kind), n})
			}
		}
	}
	return out
}

func replace[T any](list []T, o T, name func(T) lb.Name) []T {
	for i := range list {
		if name(list[i]) == name(o) {
			list[i] = o
			return list
		}
	}
	return append(list, o)
}

func remove[T any](list []T, n lb.Name, name func(T) lb.Name) []T {
	var out []T
	for _, o := range list {
		if name(o) != n {
			out = append(out, o)
		}
	}
	return out
}

func deleteObject(ts *testscript.TestScript, _ bool, args []string) {
	m := machineOf(ts)
	if args[0] == "node" {
		m.daemon.Tracker.SetNode(lb.Node{})
		return
	}
	ns, name, _ := strings.Cut(args[1], "/")
	n := lb.Name{Namespace: ns, Name: name}
	switch args[0] {
	case "service":
		m.objects.Services = remove(m.objects.Services, n, func(s lb.Service) lb.Name { return s.Name })
		m.daemon.Tracker.DeleteService(n)
	case "endpointslice":
		m.objects.Slices = remove(m.objects.Slices, n, func(s lb.EndpointSlice) lb.Name { return s.Name })
		m.daemon.Tracker.DeleteEndpointSlice(n)
	default:
		ts.Fatalf("delete node, service or endpointslice, not %q", args[0])
	}
}

// key parses "TCP 10.96.0.10:80".
func key(ts *testscript.TestScript, proto, addr string) ipvs.Key {
	ap, err := netip.ParseAddrPort(addr)
	ts.Check(err)
	for _, p := range []ipvs.Proto{ipvs.TCP, ipvs.UDP, ipvs.SCTP} {
		if p.String() == proto {
			return ipvs.Key{Addr: ap.Addr(), Port: ap.Port(), Proto: p}
		}
	}
	ts.Fatalf("%q is not TCP, UDP or SCTP", proto)
	return ipvs.Key{}
}

func dest(ts *testscript.TestScript, addr string) ipvs.Dest {
	ap, err := netip.ParseAddrPort(addr)
	ts.Check(err)
	return ipvs.Dest{Addr: ap.Addr(), Port: ap.Port()}
}

// setConns gives a real server a number of active connections, and maybe of inactive ones and of packets in and out.
func setConns(ts *testscript.TestScript, _ bool, args []string) {
	var n [4]int
	for i, a := range args[3:] {
		var err error
		n[i], err = strconv.Atoi(a)
		ts.Check(err)
	}
	c := ipvs.Conns{Active: n[0], Inactive: n[1], In: uint32(n[2]), Out: uint32(n[3])}
	machineOf(ts).table.SetConns(key(ts, args[0], args[1]), dest(ts, args[2]), c)
}

// changeKernel does what another program or an operator might do behind the daemon's back.
func changeKernel(ts *testscript.TestScript, _ bool, args []string) {
	m, ctx := machineOf(ts), context.Background()
	do := func(op ipvs.Op) {
		for _, e := range m.table.Apply(ctx, []ipvs.Op{op}) {
			ts.Fatalf("%v", e)
		}
	}
	switch args[0] {
	case "clear-ipvs": // ipvsadm -C
		s, err := m.table.Dump(ctx)
		ts.Check(err)
		for k := range s.Virtual {
			do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k})
		}
	case "add-virtual":
		do(ipvs.Op{Verb: ipvs.AddVirtual, Key: key(ts, args[1], args[2]), Config: ipvs.Config{Scheduler: "wlc"}})
	case "delete-virtual":
		do(ipvs.Op{Verb: ipvs.DeleteVirtual, Key: key(ts, args[1], args[2])})
	case "set-weight":
		w, err := strconv.Atoi(args[4])
		ts.Check(err)
		do(ipvs.Op{Verb: ipvs.EditReal, Key: key(ts, args[1], args[2]), Real: ipvs.RealServer{Dest: dest(ts, args[3]), Weight: w}})
	case "delete-device":
		s, err := m.table.Dump(ctx)
		ts.Check(err)
		for p := range s.Bound {
			do(ipvs.Op{Verb: ipvs.Unbind, Prefix: p})
		}
		for k := range s.Ports {
			do(ipvs.Op{Verb: ipvs.UnbindPort, Key: k})
		}
	case "flush-set":
		m.sets.Clear(args[1])
	case "send": // an endpoint sends a packet
		k := key(ts, args[1], args[2])
		m.tables.Apply(ctx, []nftables.Op{{
			Delete: true, Set: nftables.SetID{Family: nftables.IPv4, Table: "kube-hop", Name: "silent"},
			Key: nftables.Key{Addr: k.Addr, Proto: uint8(k.Proto), Port: k.Port},
		}})
	case "no-nftables":
		m.noNFT = true
	case "flush-nft":
		m.tables.Flush(nftables.IPv4, "kube-hop", args[1])
	case "clear-nft":
		m.tables.Clear(nftables.SetID{Family: nftables.IPv4, Table: "kube-hop", Name: args[1]})
	case "flush-rules":
		for f, r := range m.rules {
			ts.Check(r.Remove(ctx, render.Skeleton(f, lb.Node{}, render.Config{MasqueradeBit: 14})))
		}
	case "remove-loopback":
		m.looped.Clear()
	case "reset-sysctl":
		m.sysctls = append(m.sysctls, args[1])
	default:
		ts.Fatalf("kernel: unknown change %q", args[0])
	}
}

// checkMetric compares the sum of a metric over its labels (those given as name=value must match) with a number.
func checkMetric(ts *testscript.TestScript, _ bool, args []string) {
	m := machineOf(ts)
	families, err := m.metrics.Registry.Gather()
	ts.Check(err)
	want, sum := args[len(args)-1], 0.0
	for _, f := range families {
		if f.GetName() != args[0] {
			continue
		}
		for _, v := range f.GetMetric() {
			if hasLabels(v, args[1:len(args)-1]) {
				sum += v.GetCounter().GetValue() + v.GetGauge().GetValue()
			}
		}
	}
	if got := strconv.FormatFloat(sum, 'f', -1, 64); m.flaky == 0 && got != want {
		ts.Fatalf("metric %s is %s, not %s", strings.Join(args[:len(args)-1], " "), got, want)
	}
}

func hasLabels(m *dto.Metric, want []string) bool {
	for _, w := range want {
		name, value, _ := strings.Cut(w, "=")
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == name && l.GetValue() == value
		}
		if !found {
			return false
		}
	}
	return true
}

func (m *machine) failing() int {
	var out dto.Metric
	if err := m.metrics.Failing.Write(&out); err != nil {
		return 0
	}
	return int(out.GetGauge().GetValue())
}
