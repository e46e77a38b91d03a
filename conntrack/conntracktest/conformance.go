package conntracktest

import (
	"context"
	"net/netip"
	"testing"

	"github.com/kube-hop/kube-hop/conntrack"
	"github.com/kube-hop/kube-hop/lb"
)

// Env is a table under test, with means to fill it and look at it that are not the table's own.
type Env struct {
	conntrack.Table

	Add func(t *testing.T, f conntrack.Flow)
	Has func(t *testing.T, f conntrack.Flow) bool
}

// Conformance checks a Table against the contract. open returns an empty one, another for each subtest.
func Conformance(t *testing.T, open func(t *testing.T) Env) {
	t.Helper()
	for _, s := range []struct {
		name string
		run  func(*testing.T, Env)
	}{
		{"Nothing", nothing},
		{"OneFrontend", oneFrontend},
		{"NodePortByAddressAndPort", nodePort},
		{"GoneFrontend", goneFrontend},
		{"BothFamilies", bothFamilies},
		{"AddedServers", addedServers},
		{"ManyAddedServers", manyAddedServers},
		{"ManyFrontends", manyFrontends},
		{"Opened", opened},
		{"ManyOpened", manyOpened},
		{"ManyFlows", manyFlows},
		{"ContextEnded", contextEnded},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(t, open(t)) })
	}
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func flow(client, dst, server string) conntrack.Flow {
	return conntrack.Flow{Proto: lb.UDP, Client: at(client), Dst: at(dst), Server: at(server)}
}

func (e Env) fill(t *testing.T, flows ...conntrack.Flow) {
	t.Helper()
	for _, f := range flows {
		e.Add(t, f)
		if !e.Has(t, f) {
			t.Fatalf("%v was added and is not there", f)
		}
	}
}

// expire runs Expire and checks what it deleted and left.
func (e Env) expire(t *testing.T, fs conntrack.Frontends, gone, left []conntrack.Flow) {
	t.Helper()
	e.clean(t, conntrack.Cleanup{Frontends: fs}, gone, left)
}

func (e Env) clean(t *testing.T, c conntrack.Cleanup, gone, left []conntrack.Flow) {
	t.Helper()
	n, err := e.Expire(t.Context(), c)
	if err != nil || n != len(gone) {
		t.Errorf("deleted %d entries, %v, want %d", n, err, len(gone))
	}
	for _, f := range gone {
		if e.Has(t, f) {
			t.Errorf("%v is still there", f)
		}
	}
	for _, f := range left {
		if !e.Has(t, f) {
			t.Errorf("%v is gone", f)
		}
	}
	if n, err := e.Expire(t.Context(), c); n != 0 || err != nil {
		t.Errorf("the second time deleted %d entries, %v, want none", n, err)
	}
}

func nothing(t *testing.T, e Env) {
	left := []conntrack.Flow{flow("192.0.2.7:1000", "10.96.0.53:53", "10.244.1.5:53")}
	e.fill(t, left...)
	e.expire(t, nil, nil, left)
	e.expire(t, conntrack.Frontends{}, nil, left)
}

func oneFrontend(t *testing.T, e Env) {
	left := []conntrack.Flow{
		flow("192.0.2.7:1000", "10.96.0.53:53", "10.244.1.5:53"),
		flow("192.0.2.7:1001", "10.96.0.53:54", "10.244.9.9:53"),
		flow("192.0.2.7:1002", "10.96.0.54:53", "10.244.9.9:53"),
		flow("10.96.0.53:53", "192.0.2.7:1003", "192.0.2.7:1003"), // the frontend's address as client
	}
	gone := []conntrack.Flow{
		flow("192.0.2.7:1004", "10.96.0.53:53", "10.244.9.9:53"),
		flow("192.0.2.8:1004", "10.96.0.53:53", "10.244.1.5:54"),
		flow("192.0.2.7:1005", "10.96.0.53:53", "10.96.0.53:53"),
	}
	e.fill(t, append(left, gone...)...)
	e.expire(t, conntrack.Frontends{at("10.96.0.53:53"): {Live: []netip.AddrPort{at("10.244.1.5:53")}}}, gone, left)
}

func nodePort(t *testing.T, e Env) {
	gone := []conntrack.Flow{flow("10.244.1.5:2000", "192.0.2.11:30053", "10.244.9.9:53")}
	left := []conntrack.Flow{flow("10.244.1.5:2000", "198.51.100.9:30053", "198.51.100.9:30053")}
	e.fill(t, append(left, gone...)...)
	e.expire(t, conntrack.Frontends{at("192.0.2.11:30053"): {}}, gone, left)
}

func goneFrontend(t *testing.T, e Env) {
	gone := []conntrack.Flow{flow("192.0.2.7:1000", "192.0.2.11:30053", "10.244.9.9:53")}
	left := []conntrack.Flow{flow("192.0.2.8:1000", "192.0.2.11:30053", "192.0.2.11:30053")}
	e.fill(t, append(left, gone...)...)
	e.expire(t, conntrack.Frontends{at("192.0.2.11:30053"): {Gone: true}}, gone, left)
}

func bothFamilies(t *testing.T, e Env) {
	gone := []conntrack.Flow{
		flow("192.0.2.7:1000", "10.96.0.53:53", "10.244.9.9:53"),
		flow("[2001:db8::7]:1000", "[fd96::53]:53", "[fd24::9]:53"),
	}
	left := []conntrack.Flow{
		flow("192.0.2.8:1000", "10.96.0.53:53", "10.244.1.5:53"),
		flow("[2001:db8::8]:1000", "[fd96::53]:53", "[fd24::5]:53"),
		flow("[2001:db8::8]:1000", "[fd96::54]:53", "[fd24::9]:53"),
	}
	e.fill(t, append(left, gone...)...)
	e.expire(t, conntrack.Frontends{
		at("10.96.0.53:53"): {Live: []netip.AddrPort{at("10.244.1.5:53")}},
		at("[fd96::53]:53"): {Live: []netip.AddrPort{at("[fd24::5]:53")}},
	}, gone, left)
}

// unanswered returns a flow that nobody has answered.
func unanswered(client, dst string) conntrack.Flow {
	f := flow(client, dst, dst)
	f.Unanswered = true
	return f
}

func addedServers(t *testing.T, e Env) {
	gone := []conntrack.Flow{
		unanswered("10.244.1.5:53", "192.0.2.7:1000"),
		unanswered("10.244.1.5:53", "192.0.2.8:1000"),
		unanswered("[fd24::5]:53", "[2001:db8::7]:1000"),
	}
	left := []conntrack.Flow{
		unanswered("10.244.1.5:54", "192.0.2.7:1000"),
		unanswered("10.244.1.6:53", "192.0.2.7:1001"),
		unanswered("192.0.2.7:1000", "10.244.1.9:53"),
		flow("10.244.1.5:53", "192.0.2.9:53", "192.0.2.9:53"), // which it asked and was answered
	}
	e.fill(t, append(left, gone...)...)
	e.clean(t, conntrack.Cleanup{Added: map[netip.AddrPort]struct{}{at("10.244.1.5:53"): {}, at("[fd24::5]:53"): {}}}, gone, left)
}

func manyAddedServers(t *testing.T, e Env) {
	c := conntrack.Cleanup{Added: map[netip.AddrPort]struct{}{}}
	var gone, left []conntrack.Flow
	for i := range 100 {
		server := numbered(244, i, 53)
		c.Added[server] = struct{}{}
		gone = append(gone, conntrack.Flow{Proto: lb.UDP, Client: server, Dst: at("192.0.2.7:1000"), Server: at("192.0.2.7:1000"), Unanswered: true})
		left = append(left, conntrack.Flow{Proto: lb.UDP, Client: server, Dst: at("192.0.2.7:1001"), Server: at("192.0.2.7:1001")})
	}
	e.fill(t, append(left, gone...)...)
	e.clean(t, c, gone, left)
}

// numbered returns the i-th of many frontends or servers, in 10.b.0.0/16.
func numbered(b byte, i int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, b, byte(i >> 8), byte(i)}), port)
}

func manyFrontends(t *testing.T, e Env) {
	fs := conntrack.Frontends{}
	var gone, left []conntrack.Flow
	for i := range 100 {
		dst, server := numbered(96, i, 53), numbered(244, i, 53)
		fs[dst] = conntrack.Servers{Live: []netip.AddrPort{server}}
		left = append(left, conntrack.Flow{Proto: lb.UDP, Client: at("192.0.2.7:1000"), Dst: dst, Server: server})
		gone = append(gone, conntrack.Flow{Proto: lb.UDP, Client: at("192.0.2.7:1001"), Dst: dst, Server: numbered(245, i, 53)})
	}
	e.fill(t, append(left, gone...)...)
	e.expire(t, fs, gone, left)
}

// of returns a flow of another protocol.
func of(p lb.Proto, f conntrack.Flow) conntrack.Flow {
	f.Proto = p
	return f
}

// opened: of TCP and SCTP that goes which is older than its frontend and which nobody has answered.
func opened(t *testing.T, e Env) {
	translated := flow("192.0.2.7:1001", "10.96.0.80:80", "10.244.1.5:80")
	translated.Unanswered = true // sent to a real server, whose answer is on its way
	gone := []conntrack.Flow{
		of(lb.TCP, unanswered("192.0.2.7:1000", "10.96.0.80:80")),
		of(lb.SCTP, unanswered("192.0.2.7:1000", "10.96.0.80:81")),
		of(lb.TCP, unanswered("[2001:db8::7]:1000", "[fd96::80]:80")),
	}
	left := []conntrack.Flow{
		of(lb.TCP, translated),
		of(lb.TCP, flow("192.0.2.7:1002", "10.96.0.80:80", "10.244.9.9:80")), // a server that drains or is gone: IPVS knows
		of(lb.TCP, flow("192.0.2.7:1003", "10.96.0.80:80", "10.96.0.80:80")), // whoever had the address has answered
		of(lb.TCP, unanswered("192.0.2.7:1000", "10.96.0.80:81")),
		of(lb.TCP, unanswered("192.0.2.7:1000", "10.96.0.81:80")),
		of(lb.SCTP, unanswered("192.0.2.7:1000", "10.96.0.80:80")),
		unanswered("192.0.2.7:1000", "10.96.0.80:80"), // UDP
	}
	e.fill(t, append(left, gone...)...)
	e.clean(t, conntrack.Cleanup{Opened: map[conntrack.Frontend]struct{}{
		{Proto: lb.TCP, At: at("10.96.0.80:80")}:  {},
		{Proto: lb.SCTP, At: at("10.96.0.80:81")}: {},
		{Proto: lb.TCP, At: at("[fd96::80]:80")}:  {},
	}}, gone, left)
}

func manyOpened(t *testing.T, e Env) {
	c := conntrack.Cleanup{Opened: map[conntrack.Frontend]struct{}{}}
	var gone, left []conntrack.Flow
	for i := range 100 {
		proto, other := lb.TCP, lb.SCTP
		if i%2 == 1 {
			proto, other = other, proto
		}
		dst := numbered(96, i, 80)
		c.Opened[conntrack.Frontend{Proto: proto, At: dst}] = struct{}{}
		f := conntrack.Flow{Proto: proto, Client: at("192.0.2.7:1000"), Dst: dst, Server: dst, Unanswered: true}
		gone = append(gone, f)
		left = append(left, of(other, f), of(lb.UDP, f))
	}
	e.fill(t, append(left, gone...)...)
	e.clean(t, c, gone, left)
}

func manyFlows(t *testing.T, e Env) {
	var gone, left []conntrack.Flow
	for i := range 1500 { // more than one message of a listing holds
		gone = append(gone, conntrack.Flow{Proto: lb.UDP, Client: numbered(1, i, 1000), Dst: at("10.96.0.53:53"), Server: at("10.244.9.9:53")})
		left = append(left, conntrack.Flow{Proto: lb.UDP, Client: numbered(1, i, 1001), Dst: at("10.96.0.54:53"), Server: at("10.244.9.9:53")})
	}
	e.fill(t, append(left, gone...)...)
	e.expire(t, conntrack.Frontends{at("10.96.0.53:53"): {}}, gone, left)
}

func contextEnded(t *testing.T, e Env) {
	left := flow("192.0.2.7:1000", "10.96.0.53:53", "10.244.9.9:53")
	e.fill(t, left)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := e.Expire(ctx, conntrack.Cleanup{Frontends: conntrack.Frontends{left.Dst: {}}}); n != 0 || err == nil {
		t.Errorf("deleted %d entries, %v, after the context had ended", n, err)
	}
	if !e.Has(t, left) {
		t.Error("the entry is gone")
	}
}
