package ipvsnl

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/ipvs"
)

// procText was printed by Linux 6.12.
const procText = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr 
  -> 0AF4020B:1F90      Masq    1      0          31        
  -> 0AF4010B:1F90      Masq    0      2          0         
UDP  0A600035:0035 wlc ops 
TCP  [fd96:0000:0000:0000:0000:0000:0000:0010]:0050 rr persistent 10800 128
  -> [fd24:0000:0000:0001:0000:0000:0000:0011]:1F90      Masq    65535  0          0         
FWM  00000007 rr 
  -> 0AF4010B:1F90      Masq    1      0          0         
TCP  C0000201:0050 rr 
  -> 0AF4010B:1F90      Masq    1      0          0         
  -> 0AF4010C:0050      Route   1      0          0         
`

func TestParseProc(t *testing.T) {
	got, err := parseProc(strings.NewReader(procText))
	if err != nil {
		t.Fatal(err)
	}
	real := func(dest string, weight int) ipvs.RealServer {
		d := netip.MustParseAddrPort(dest)
		return ipvs.RealServer{Dest: ipvs.Dest{Addr: d.Addr(), Port: d.Port()}, Weight: weight}
	}
	virtual := func(p ipvs.Proto, addr string) ipvs.Key {
		a := netip.MustParseAddrPort(addr)
		return ipvs.Key{Addr: a.Addr(), Port: a.Port(), Proto: p}
	}
	// The one by mark and the one with a real server that is routed are left to a closer look.
	want := map[ipvs.Key][]ipvs.RealServer{
		virtual(ipvs.TCP, "10.96.0.10:80"): {real("10.244.1.11:8080", 0), real("10.244.2.11:8080", 1)},
		virtual(ipvs.UDP, "10.96.0.53:53"): nil,
		virtual(ipvs.TCP, "[fd96::10]:80"): {real("[fd24:0:0:1::11]:8080", 65535)},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("real servers (-want +got):\n%s", d)
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add(procText)
	f.Add("\n\n\nTCP :\n")
	f.Add("\n\n\nTCP 0A60000A:0050 rr\n -> 0A:1 Masq 1\n")
	f.Add("\n\n\nTCP [::1%a]:0050 rr\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseProc(strings.NewReader(text))
		if err != nil {
			return
		}
		for k, list := range got {
			if err := (ipvs.Op{Verb: ipvs.DeleteVirtual, Key: k}).Validate(); k.Addr.Zone() != "" || k.Proto == 0 {
				t.Errorf("virtual server %v: %v", k, err)
			}
			for _, r := range list {
				if !r.Addr.IsValid() || r.Weight < 0 || r.Weight > ipvs.MaxWeight {
					t.Errorf("real server %v of %v", r, k)
				}
			}
		}
	})
}

// BenchmarkParseProc reads virtual servers with ten real servers each.
func BenchmarkParseProc(b *testing.B) {
	var text strings.Builder
	text.WriteString("\n\n\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "TCP  0A60%04X:0050 rr \n", i)
		for j := range 10 {
			fmt.Fprintf(&text, "  -> 0AF4%02X%02X:1F90      Masq    1      0          0         \n", i%256, j)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if got, err := parseProc(strings.NewReader(text.String())); err != nil || len(got) != 1000 {
			b.Fatal(len(got), err)
		}
	}
}
