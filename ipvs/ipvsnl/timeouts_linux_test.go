package ipvsnl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReconcile: neither table forgets a connection that the other one still has because somebody wished for it.
func TestReconcile(t *testing.T) {
	const s = time.Second
	kernel := Timeouts{TCP: 900 * s, TCPFin: 120 * s, UDP: 300 * s, TrackTCP: 432000 * s, TrackCloseWait: 60 * s, TrackUDP: 30 * s, TrackUDPStream: 120 * s}
	changed := func(change func(*Timeouts)) Timeouts {
		want := kernel
		want.TCP = want.TrackTCP
		change(&want)
		return want
	}
	for _, tc := range []struct {
		name string
		wish Timeouts
		want Timeouts
	}{
		{"no wish: TCP as connection tracking", Timeouts{}, changed(func(*Timeouts) {})},
		{"connection tracking's TCP counts for both", Timeouts{TrackTCP: 86400 * s}, changed(func(w *Timeouts) { w.TCP, w.TrackTCP = 86400*s, 86400*s })},
		{"a short one of IPVS is its own", Timeouts{TCP: 20 * s}, changed(func(w *Timeouts) { w.TCP = 20 * s })},
		{"a long one of IPVS counts for both", Timeouts{TCP: 500000 * s, TrackTCP: 86400 * s}, changed(func(w *Timeouts) { w.TCP, w.TrackTCP = 500000*s, 500000*s })},
		{"a long UDP one of IPVS counts for both", Timeouts{UDP: 200 * s}, changed(func(w *Timeouts) { w.UDP, w.TrackUDP, w.TrackUDPStream = 200*s, 200*s, 200*s })},
		{"the larger UDP wish counts", Timeouts{UDP: 100 * s, TrackUDPStream: 400 * s}, changed(func(w *Timeouts) { w.UDP, w.TrackUDP, w.TrackUDPStream = 400*s, 100*s, 400*s })},
		{"connection tracking's UDP does not shorten IPVS's", Timeouts{TrackUDP: 60 * s}, changed(func(w *Timeouts) { w.TrackUDP = 60 * s })},
		{"the others", Timeouts{TCPFin: 10 * s, TrackCloseWait: 3600 * s}, changed(func(w *Timeouts) { w.TCPFin, w.TrackCloseWait = 10*s, 3600*s })},
	} {
		got := tc.wish.reconcile(kernel)
		if got != tc.want {
			t.Errorf("%s:\n got %+v\nwant %+v", tc.name, got, tc.want)
		}
		if again := tc.wish.reconcile(got); again != got {
			t.Errorf("%s: the second time\n got %+v\nwant %+v", tc.name, again, got)
		}
	}
}

// TestTrackMax: the limit is raised as kube-proxy does, and never lowered.
func TestTrackMax(t *testing.T) {
	for _, tc := range []struct {
		name, online, max, buckets string
		perCore, least             int
		want, wantBuckets          string
	}{
		{"by processors", "0-15", "65536", "1024", 32768, 131072, "524288", "131072"},
		{"the least", "0", "65536", "65536", 32768, 131072, "131072", "65536"},
		{"enough already", "0-3,8", "262144", "65536", 32768, 131072, "262144", "65536"},
		{"not more than a million", "0-63", "65536", "16384", 32768, 4000000, "1048576", "262144"},
		{"left alone", "0-15", "65536", "1024", 0, 131072, "65536", "1024"},
	} {
		root := sysctlTree(t, map[string]string{trackMax: tc.max, "net/ipv4/vs/conntrack": "1"})
		sys := sysctlTree(t, map[string]string{trackBuckets: tc.buckets, "devices/system/cpu/online": tc.online})
		Sysctls(SysctlOptions{Root: root, Sys: sys, Release: "6.12", TrackMaxPerCore: tc.perCore, TrackMin: tc.least})
		if got := read(t, root, trackMax); got != tc.want {
			t.Errorf("%s: nf_conntrack_max is %s, want %s", tc.name, got, tc.want)
		}
		if got := read(t, sys, trackBuckets); got != tc.wantBuckets {
			t.Errorf("%s: hashsize is %s, want %s", tc.name, got, tc.wantBuckets)
		}
	}
}

func read(t *testing.T, root, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestProblemNamesTheCure(t *testing.T) {
	p := Problem{Path: ipvsTimeouts, Found: "900 120 300", Wanted: "86400 120 300", Why: "because", Err: os.ErrPermission, Cure: "ipvsadm --set 86400 120 300"}
	want := `IPVS timeouts is 900 120 300 and must be 86400 120 300 (because): permission denied; set it with "ipvsadm --set 86400 120 300"`
	if p.String() != want {
		t.Errorf("got  %s\nwant %s", p, want)
	}
}
