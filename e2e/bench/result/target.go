package result

import (
	"fmt"
	"slices"
	"strings"
)

// Outcome is how a target compares with what was observed.
type Outcome string

// The outcomes. A target that nothing was measured for is not there to be met.
const (
	Met    Outcome = "met"
	NotMet Outcome = "**not met**"
	Open   Outcome = "-"
)

// target is a promise about figures at one size.
type target struct {
	title string
	// sizes are those that it is about; nil is every one.
	sizes []int
	// holds compares; the text says what was observed, such as 3.1 x. It is Open if something is missing.
	holds func(b *book, n int) (Outcome, string)
}

// targets writes how every target compares at every size that it is about.
func (b *book) targets(out *strings.Builder) {
	out.WriteString("\n## Targets\n\n| target |")
	for _, n := range b.sizes {
		fmt.Fprintf(out, " n = %s |", thousands(n))
	}
	fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---|", len(b.sizes)))
	for _, t := range allTargets() {
		fmt.Fprintf(out, "| %s |", t.title)
		for _, n := range b.sizes {
			outcome, text := Open, ""
			if t.sizes == nil || slices.Contains(t.sizes, n) {
				outcome, text = t.holds(b, n)
			}
			if outcome == Open {
				fmt.Fprintf(out, " %s |", Open)
				continue
			}
			fmt.Fprintf(out, " %s (%s) |", outcome, text)
		}
		out.WriteByte('\n')
	}
}

// flat is what counts as the same within noise: at most this factor between two sizes.
const flat = 1.5

func allTargets() []target {
	large := []int{5000, 20000}
	return []target{
		{"first sync at most 1.5 x the floor of one request each", nil, atMostTimes(SyncOwn, FloorSingle, 1.5)},
		{"first sync at most 1.5 x the floor of many requests at once", nil, atMostTimes(SyncOwn, FloorBatch, 1.5)},
		{"each Service beyond the smallest size at most 1.5 x its floor of many requests at once", nil, growsAtMost(SyncOwn, FloorBatch, 1.5)},
		{"start at least 3 x faster than nftables", nil, times(SyncTotal, NFTables, 3)},
		{"start at least 50 x faster than kube-proxy ipvs", nil, times(SyncTotal, IPVS, 50)},
		{"one endpoint in the kernel, p99, under 20 ms beyond the API server's delivery", nil, under(BeyondP99, 20)},
		{"the daemon's own share of that, p99, under 2 ms", nil, under(OwnP99, 2)},
		{"one endpoint costs the same at every size (p50, to the smallest)", nil, sameAsSmallest(BeyondP50)},
		{"no kernel operation at a restart with everything in place", nil, atMost(RestartOperations, 0)},
		{"such a restart in at most half the time of the first start", nil, atMostTimes(RestartTotal, SyncTotal, 0.5)},
		{"of that, in syncs, at most half", nil, atMostTimes(RestartOwn, SyncOwn, 0.5)},
		{"100 changes a second: staleness p99 under 250 ms", []int{5000}, under(ChurnP99, 250)},
		{"100 changes a second: at most a tenth of nftables' processor time", []int{5000}, times(ChurnCPU, NFTables, 10)},
		{"idle under 0.5 % of a processor", []int{20000}, under(IdleCPU, 0.5)},
		{"peak memory of the start at most half of nftables'", large, times(SyncPeak, NFTables, 2)},
		{"new connection through a ClusterIP not dearer than nftables', in time", []int{20000}, times(ConnectP50, NFTables, 1)},
		{"the same in instructions", nil, times(ConnectP50+Counted, NFTables, 1)},
		{"new connection costs the same at every size (p50, to the smallest), in time", nil, sameAsSmallest(ConnectP50)},
		{"the same in instructions", nil, sameAsSmallest(ConnectP50 + Counted)},
	}
}

func outcome(held bool) Outcome {
	if held {
		return Met
	}
	return NotMet
}

// atMost holds if kube-hop's figure is no more than that.
func atMost(id string, most float64) func(*book, int) (Outcome, string) {
	return func(b *book, n int) (Outcome, string) {
		return b.limit(id, n, func(v float64) bool { return v <= most })
	}
}

// under holds if kube-hop's figure is less than that.
func under(id string, bound float64) func(*book, int) (Outcome, string) {
	return func(b *book, n int) (Outcome, string) {
		return b.limit(id, n, func(v float64) bool { return v < bound })
	}
}

func (b *book) limit(id string, n int, holds func(float64) bool) (Outcome, string) {
	r, ok := b.get(id, KubeHop, n)
	if !ok {
		return Open, ""
	}
	f, _ := figure(id)
	return outcome(!r.AtLeast && holds(r.Value)), strings.TrimSpace(r.text() + " " + f.Unit)
}

// atMostTimes holds if one of kube-hop's figures is at most so many times another of its run.
func atMostTimes(id, of string, most float64) func(*book, int) (Outcome, string) {
	return func(b *book, n int) (Outcome, string) {
		r, ok := b.get(id, KubeHop, n)
		base, baseOK := b.get(of, KubeHop, n)
		if !ok || !baseOK || base.Value <= 0 || base.AtLeast {
			return Open, ""
		}
		ratio := r.Value / base.Value
		return outcome(!r.AtLeast && ratio <= most), digits(ratio) + " x"
	}
}

// growsAtMost is atMostTimes for what is added to both since the smallest size.
func growsAtMost(id, of string, most float64) func(*book, int) (Outcome, string) {
	return func(b *book, n int) (Outcome, string) {
		r, ok := b.grown(id, n)
		base, baseOK := b.grown(of, n)
		if !ok || !baseOK || base <= 0 {
			return Open, ""
		}
		return outcome(r/base <= most), digits(r/base) + " x"
	}
}

// grown returns how much greater a figure of kube-hop is than at the smallest size.
func (b *book) grown(id string, n int) (float64, bool) {
	small, ok := b.get(id, KubeHop, b.sizes[0])
	r, found := b.get(id, KubeHop, n)
	return r.Value - small.Value, ok && found && n != b.sizes[0] && !r.AtLeast
}

// times holds if kube-hop is at least so many times better than the peer.
func times(id, peer string, least float64) func(*book, int) (Outcome, string) {
	return func(b *book, n int) (Outcome, string) {
		f, _ := figure(id)
		text := b.favour(f, peer, n)
		if text == "-" {
			return Open, ""
		}
		hop, _ := b.get(id, KubeHop, n)
		other, _ := b.get(id, peer, n)
		held := other.Value >= least*hop.Value
		if other.AtLeast && !held {
			return Open, "" // it may or may not hold
		}
		return outcome(held), text + " x"
	}
}

// sameAsSmallest holds if the figure is as at the smallest size, within noise.
func sameAsSmallest(id string) func(*book, int) (Outcome, string) {
	return func(b *book, n int) (Outcome, string) {
		base, ok := b.get(id, KubeHop, b.sizes[0])
		r, found := b.get(id, KubeHop, n)
		if !ok || !found || n == b.sizes[0] || base.Value <= 0 {
			return Open, ""
		}
		ratio := r.Value / base.Value
		return outcome(ratio <= flat), digits(ratio) + " x"
	}
}
