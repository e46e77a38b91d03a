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

func TestP56ICMP(t *testing.T) {
	r := begin(t, "P56", "ICMP errors reach the pod, so that transfers over a narrow path complete; ping to VIPs has one answer everywhere")
	s := r.service("p56", over(testbed.TCP, testbed.UDP))
	kept, empty := r.service("p56-local", etpLocal), r.service("p56-empty")
	s.endpoints(ready(r.B1))
	kept.endpoints(ready(r.A1))
	empty.endpoints()
	r.settle()
	far := r.narrowPath()
	for _, f := range []frontend{kept.V(), s.N(r.N1), s.C()} {
		for _, dst := range f.at {
			if err := transfer(r, far, dst); err != nil {
				r.Errorf("transfer to %s %s over a path of 1300 bytes: %v", f.name, dst, err)
			}
		}
	}
	udp := s.overProto(testbed.UDP)
	for _, f := range []frontend{udp.C(), udp.V(), udp.N(r.N1)} {
		for _, dst := range f.at {
			if err := bigDatagram(r, r.Out, dst); err != nil {
				r.Errorf("datagram of 3000 bytes to %s %s: %v", f.name, dst, err)
			}
		}
	}
	r.pings(s, empty)
}

// narrowPath adds an outside client that the nodes reach by way of out, over a path of 1300 bytes; its own packets
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
		"ip route add %s/32 dev eth0 mtu lock 1300\nip -6 route add %s/128 dev eth0 mtu lock 1300", far.Addr4, far.Addr6)
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

// transfer lets the pod behind dst send 300 kB, in segments that are too large for the path at first.
func transfer(r *row, client *testbed.Host, dst netip.AddrPort) error {
	conn, err := client.DialContext(r.Context(), "tcp", dst.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return err
	}
	if _, err := in.ReadString('\n'); err != nil {
		return fmt.Errorf("first answer: %w", err)
	}
	line := strings.Repeat("x", 30_000) + "\n"
	for n := range 10 {
		if _, err := conn.Write([]byte(line)); err != nil {
			return err
		}
		if got, err := in.ReadString('\n'); err != nil || got != line {
			return fmt.Errorf("after %d lines of %d: %w", n, len(line), errors.Join(err, os.ErrInvalid))
		}
	}
	return nil
}

// bigDatagram sends a datagram that goes in fragments both ways.
func bigDatagram(r *row, client *testbed.Host, dst netip.AddrPort) error {
	conn, err := client.DialContext(r.Context(), "udp", dst.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
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
		// Package net takes the header of IPv4 off; others' messages come too.
		if n, err = conn.Read(buf); err == nil && n >= len(msg) && buf[0] == reply {
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
