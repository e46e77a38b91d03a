//go:build e2e && linux

package parity

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// narrow is the size of the largest packet that the narrow path carries.
const narrow = 1300

// TestP56ICMP: what must get through for large transfers does.
func TestP56ICMP(t *testing.T) {
	bytes := 10_000_000
	if testing.Short() {
		bytes = 300_000
	}
	r := begin(t, "P56", fmt.Sprintf("ICMP errors reach the pod, which learns of a path of %d bytes: transfers of %.1f MB and datagrams of "+
		"3,000 bytes get through; ping to VIPs has one answer everywhere", narrow, float64(bytes)/1e6))
	s := r.service("p56", over(testbed.TCP, testbed.UDP))
	kept, empty := r.service("p56-local", etpLocal, over(testbed.TCP, testbed.UDP)), r.service("p56-empty")
	s.endpoints(ready(r.B1))
	kept.endpoints(ready(r.A1))
	empty.endpoints()
	r.settle()
	far := r.narrowPath()
	for _, w := range []struct {
		s     *service
		front func(servicePort) frontend
		pod   *testbed.Host
	}{{kept, servicePort.V, r.A1}, {s, func(p servicePort) frontend { return p.N(r.N1) }, r.B1}, {s, servicePort.C, r.B1}} {
		tcp, udp := w.front(w.s.overProto(testbed.TCP)), w.front(w.s.overProto(testbed.UDP))
		for i, dst := range tcp.at {
			r.narrowTransfer(far, tcp, dst, w.pod, bytes)
			r.narrowDatagrams(far, udp, udp.at[i], w.pod)
		}
	}
	for _, f := range []frontend{s.overProto(testbed.UDP).C(), s.overProto(testbed.UDP).V(), s.overProto(testbed.UDP).N(r.N1)} {
		for _, dst := range f.at { // over a path that is wide enough
			if err := bigDatagram(r, r.Out, dst, patience); err != nil {
				r.Errorf("datagram of 3000 bytes to %s %s: %v", f.name, dst, err)
			}
		}
	}
	r.pings(s, empty)
}

// narrowTransfer: the pod's segments, which it may not let be cut, are too large for the way to the client at first.
func (r *row) narrowTransfer(client *testbed.Host, f frontend, dst netip.AddrPort, pod *testbed.Host, bytes int) {
	r.Helper()
	r.forgetPath(pod)
	peer, err := transfer(r, client, dst, bytes)
	if err != nil {
		r.Errorf("transfer to %s %s over a path of %d bytes: %v", f.name, dst, narrow, err)
		return
	}
	out, err := pod.Command(r.Context(), "ip", "route", "get", peer.Addr().String()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("mtu %d", narrow)) {
		r.Errorf("after a transfer to %s %s %s does not know that the path to %s is narrow: %s (%v)", f.name, dst, pod, peer.Addr(), out, err)
	}
}

// narrowDatagrams: the pod's large datagrams arrive as soon as it knows what the path carries.
func (r *row) narrowDatagrams(client *testbed.Host, f frontend, dst netip.AddrPort, pod *testbed.Host) {
	r.Helper()
	r.forgetPath(pod)
	if err := r.soon(func() error { return bigDatagram(r, client, dst, dropTime) }); err != nil {
		r.Errorf("datagram of 3000 bytes to %s %s over a path of %d bytes: %v", f.name, dst, narrow, err)
	}
}

// forgetPath makes a pod forget what it learnt of the ways to others.
func (r *row) forgetPath(pod *testbed.Host) {
	r.Helper()
	r.run(pod, "ip", "-4", "route", "flush", "cache")
	r.run(pod, "ip", "-6", "route", "flush", "cache")
}

// narrowPath adds an outside client that the nodes reach by way of out, over a narrow path; its own packets
// to them go straight.
func (r *row) narrowPath() *testbed.Host {
	r.Helper()
	far := r.Host("far")
	if far != nil {
		return far
	}
	far, err := r.AddOutside(r.Context(), "far")
	r.must(err)
	script := fmt.Sprintf("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0\n"+
		"ip route add %s/32 dev eth0 mtu lock %d\nip -6 route add %s/128 dev eth0 mtu lock %d", far.Addr4, narrow, far.Addr6, narrow)
	out, err := r.Out.Command(r.Context(), "bash", "-ec", script).CombinedOutput()
	if err != nil {
		r.Fatalf("make out a router: %v: %s", err, out)
	}
	for _, n := range r.proxied() {
		for _, a := range []netip.Addr{far.Addr4, far.Addr6} {
			r.must(n.RouteVia(netip.PrefixFrom(a, a.BitLen()), r.Out))
		}
	}
	return far
}

// transfer lets the pod behind dst send a number of bytes, and returns as whom it sees the client.
func transfer(r *row, client *testbed.Host, dst netip.AddrPort, bytes int) (peer netip.AddrPort, err error) {
	conn, err := client.DialContext(r.Context(), "tcp", dst.String())
	if err != nil {
		return peer, err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return peer, err
	}
	first, err := in.ReadString('\n')
	if err != nil {
		return peer, fmt.Errorf("first answer: %w", err)
	}
	_, text, _ := strings.Cut(strings.TrimSpace(first), " ")
	if peer, err = netip.ParseAddrPort(text); err != nil {
		return peer, fmt.Errorf("first answer %q: %w", first, err)
	}
	line := strings.Repeat("x", 30_000-1) + "\n"
	for n := 0; n < bytes; n += len(line) {
		if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
			return peer, err
		}
		if _, err := conn.Write([]byte(line)); err != nil {
			return peer, err
		}
		if got, err := in.ReadString('\n'); err != nil || got != line {
			return peer, fmt.Errorf("after %d bytes: %w", n, errors.Join(err, os.ErrInvalid))
		}
	}
	return peer, nil
}

// bigDatagram sends a datagram that goes in fragments both ways.
func bigDatagram(r *row, client *testbed.Host, dst netip.AddrPort, timeout time.Duration) error {
	conn, err := client.DialContext(r.Context(), "udp", dst.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("y"), 3000)
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	if err == nil && !bytes.HasSuffix(buf[:n], sent) {
		err = fmt.Errorf("answer of %d bytes without what was sent", n)
	}
	return err
}

// pings checks that an echo request to a Service address ends in one way, whoever sends it, whichever kind of address
// it is, and whether the Service has endpoints or not.
func (r *row) pings(services ...*service) {
	r.Helper()
	seen := map[string][]string{}
	for _, client := range []*testbed.Host{r.A2, r.N1, r.Out} {
		for _, s := range services {
			for _, f := range []frontend{s.C(), s.V(), s.E()} {
				for _, dst := range f.at {
					how := ping(client, dst.Addr())
					seen[how] = append(seen[how], fmt.Sprintf("%s to %s of %s (%s)", client, f.name, s.Name, dst.Addr()))
				}
			}
		}
	}
	if len(seen) > 1 {
		var text []string
		for how, who := range seen {
			text = append(text, fmt.Sprintf("%s: %s and %d more", how, who[0], len(who)-1))
		}
		slices.Sort(text)
		r.Errorf("ping: %s", strings.Join(text, "; "))
	}
	r.Logf("ping: %v", seen)
}

// ping says how an echo request to the address ends.
func ping(client *testbed.Host, dst netip.Addr) string {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if dst.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var conn net.Conn
	if err := client.Do(func() (err error) {
		conn, err = net.Dial(network, dst.String())
		return err
	}); err != nil {
		return err.Error()
	}
	defer conn.Close()
	msg := []byte{request, 0, 0, 0, 0x6b, 0x68, 0, 1} // the kernel fills in the checksum of ICMPv6
	binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err.Error()
	}
	_, err := conn.Write(msg)
	for buf := make([]byte, 1500); err == nil; {
		var n int
		if n, err = conn.Read(buf); err != nil {
			break
		}
		got := buf[:n]
		if dst.Is4() && n > 0 { // comes with its IP header
			got = got[min(n, int(got[0]&0xf)*4):]
		}
		if len(got) >= len(msg) && got[0] == reply { // others' messages come too
			return "answered"
		}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer"
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "refused"
	default:
		return err.Error()
	}
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
