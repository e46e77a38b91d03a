package ipvsnl

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"

	"github.com/kube-hop/kube-hop/ipvs"
)

// parseProc reads what /proc/net/ip_vs prints: every virtual server with its real servers, in one go. It returns the
// real servers of those virtual servers that this text describes fully; it cannot tell the family of a mark-based
// one, and does not say what a real server that is not masqueraded is. Source: ip_vs_info_seq_show in
// net/netfilter/ipvs/ip_vs_ctl.c.
func parseProc(r io.Reader) (map[ipvs.Key][]ipvs.RealServer, error) {
	out := map[ipvs.Key][]ipvs.RealServer{}
	var current ipvs.Key // zero while the real servers are not of interest
	var servers []ipvs.RealServer
	end := func() {
		if current.Addr.IsValid() {
			slices.SortFunc(servers, func(a, b ipvs.RealServer) int { return a.Compare(b.Dest) })
			out[current] = append([]ipvs.RealServer(nil), servers...)
		}
		current, servers = ipvs.Key{}, servers[:0]
	}
	lines := bufio.NewScanner(r)
	var store [4][]byte // as many fields of a line as say anything to us
	for n := 1; lines.Scan(); n++ {
		fields := firstFields(lines.Bytes(), store[:0])
		if n <= 3 || len(fields) == 0 {
			continue // the head
		}
		if string(fields[0]) != "->" {
			end()
			k, ok, err := parseProcVirtual(fields)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			if ok {
				current = k
			}
			continue
		}
		if !current.Addr.IsValid() {
			continue
		}
		server, ok, err := parseProcReal(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if !ok {
			current = ipvs.Key{}
			continue
		}
		servers = append(servers, server)
	}
	end()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return out, nil
}

// firstFields appends the fields of a line, as many as there is room for. A large node has hundreds of thousands of lines.
func firstFields(line []byte, to [][]byte) [][]byte {
	for len(to) < cap(to) {
		line = bytes.TrimLeft(line, " \t\r")
		if len(line) == 0 {
			break
		}
		end := bytes.IndexByte(line, ' ')
		if end < 0 {
			end = len(line)
		}
		to, line = append(to, line[:end]), line[end:]
	}
	return to
}

// parseProcVirtual reads "TCP  0A60000A:0050 rr"; ok is false for one by mark or of another protocol.
func parseProcVirtual(fields [][]byte) (k ipvs.Key, ok bool, err error) {
	if len(fields) < 2 {
		return k, false, fmt.Errorf("%w: virtual server %q", errWire, fields)
	}
	for _, p := range []ipvs.Proto{ipvs.TCP, ipvs.UDP, ipvs.SCTP} {
		if string(fields[0]) == p.String() {
			a, err := parseProcAddr(fields[1])
			return ipvs.Key{Addr: a.Addr(), Port: a.Port(), Proto: p}, err == nil, err
		}
	}
	return k, false, nil
}

// parseProcReal reads "-> 0AF40105:1F90 Masq 1 0 0"; ok is false if it is not masqueraded.
func parseProcReal(fields [][]byte) (r ipvs.RealServer, ok bool, err error) {
	if len(fields) < 4 {
		return r, false, fmt.Errorf("%w: real server %q", errWire, fields)
	}
	a, err := parseProcAddr(fields[1])
	if err != nil {
		return r, false, err
	}
	weight, err := strconv.ParseUint(string(fields[3]), 10, 16)
	if err != nil {
		return r, false, fmt.Errorf("%w: weight %q", errWire, fields[3])
	}
	return ipvs.RealServer{Dest: ipvs.Dest{Addr: a.Addr(), Port: a.Port()}, Weight: int(weight)}, string(fields[2]) == "Masq", nil
}

// parseProcAddr reads an address and port: 0A60000A:0050, or [fd96:0000:0000:0000:0000:0000:0000:0010]:0050.
func parseProcAddr(s []byte) (netip.AddrPort, error) {
	i := bytes.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: address %q", errWire, s)
	}
	port, err := strconv.ParseUint(string(s[i+1:]), 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: port of %q", errWire, s)
	}
	if inner, ok := bytes.CutPrefix(s[:i], []byte("[")); ok {
		a, err := netip.ParseAddr(string(bytes.TrimSuffix(inner, []byte("]"))))
		if err != nil || !a.Is6() || a.Zone() != "" {
			return netip.AddrPort{}, fmt.Errorf("%w: address %q", errWire, s)
		}
		return netip.AddrPortFrom(a, uint16(port)), nil
	}
	var b [4]byte
	if n, err := hex.Decode(b[:], s[:min(i, 8)]); err != nil || n != 4 || i != 8 {
		return netip.AddrPort{}, fmt.Errorf("%w: address %q", errWire, s)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(b), uint16(port)), nil
}
