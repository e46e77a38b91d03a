package result_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

var update = flag.Bool("update", false, "rewrite testdata")

func row(figure, subject string, services int, value float64) result.Result {
	return result.Result{
		Figure: figure, Subject: subject, Services: services, Value: value,
		Version: subject + " v1", Kernel: "6.12.0", Date: "2026-11-25",
	}
}

// results has targets of every kind that are met, not met and open.
func results() []result.Result {
	slow := row(result.SyncTotal, result.IPVS, 5000, 90)
	slow.AtLeast = true
	shared := row(result.ChangeP50, result.KubeHop, 1000, 4.5678)
	shared.Shared, shared.Samples, shared.Note = true, 30, "asked every 1 ms | more or less"
	return []result.Result{
		row(result.FloorSingle, result.KubeHop, 1000, 2),
		row(result.FloorBatch, result.KubeHop, 1000, 1.25),
		row(result.SyncOwn, result.KubeHop, 1000, 2.5),
		row(result.FloorBatch, result.KubeHop, 5000, 6.25), row(result.SyncOwn, result.KubeHop, 5000, 8.5),
		row(result.SyncTotal, result.KubeHop, 1000, 3), row(result.SyncTotal, result.KubeHop, 5000, 10),
		row(result.SyncTotal, result.NFTables, 1000, 12.345), row(result.SyncTotal, result.NFTables, 5000, 20),
		row(result.SyncTotal, result.IPVS, 1000, 262), slow,
		row(result.RestartTotal, result.KubeHop, 1000, 1.5), row(result.RestartOwn, result.KubeHop, 1000, 1.25), row(result.RestartOperations, result.KubeHop, 1000, 0),
		row(result.RestartOperations, result.KubeHop, 5000, 3),
		shared,
		row(result.BeyondP50, result.KubeHop, 1000, 2), row(result.BeyondP50, result.KubeHop, 5000, 3.2),
		row(result.ChurnCPU, result.KubeHop, 5000, 1), row(result.ChurnCPU, result.NFTables, 5000, 70),
		row(result.ConnectRate, result.KubeHop, 1000, 2000), row(result.ConnectRate, result.NFTables, 1000, 1000),
	}
}

func TestTables(t *testing.T) {
	path := filepath.Join("testdata", "benchmarks.md")
	all, core := results(), []result.Core{{Services: 1000, PerSecond: 123456, Allocs: 40.5}}
	for i := range 20 { // in whatever order
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var out bytes.Buffer
		if err := result.Write(&out, all, core); err != nil {
			t.Fatal(err)
		}
		_, got, found := strings.Cut(out.String(), "in its memory.\n\n")
		if !found {
			t.Fatalf("no preface:\n%s", out.String())
		}
		if *update && i == 0 {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Fatalf("tables (-want +got):\n%s\n%s", d, got)
		}
	}
}

func TestReadWhatAppendWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	all := results()
	again := all[0]
	again.Value = 7
	for _, r := range append(results(), again) {
		if err := result.Append(path, r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := result.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	all[0] = again // the last one counts
	if d := cmp.Diff(all, got); d != "" {
		t.Errorf("results (-want +got):\n%s", d)
	}
}

func TestReadCore(t *testing.T) {
	got, err := result.ReadCore(strings.NewReader(`cpu: some processor
BenchmarkInitial/services=1000-2         	      91	  12690604 ns/op	     78806 services/s	 6500000 B/op	   30000 allocs/op
BenchmarkInitial/services=5000-2         	      10	  60000000 ns/op	     83000 services/s	33000000 B/op	  160000 allocs/op
BenchmarkInitial/services=5000-2         	      10	  50000000 ns/op	    100000 services/s	33000000 B/op	  150000 allocs/op
BenchmarkOneEndpoint/services=1000-2     	  200000	      6000 ns/op	    2000 B/op	      20 allocs/op
PASS
`))
	want := []result.Core{{Services: 1000, PerSecond: 78806, Allocs: 30}, {Services: 5000, PerSecond: 100000, Allocs: 30}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v, core (-want +got):\n%s", err, d)
	}
	if _, err := result.ReadCore(strings.NewReader("BenchmarkInitial/services=1000-2 1 x ns/op\n")); err == nil {
		t.Error("a line without a number was taken")
	}
}

// TestString: the line that shows the progress rounds as the tables do.
func TestString(t *testing.T) {
	for value, want := range map[float64]string{
		0: " 0 s", 0.00123456: " 0.00123 s", 9.999: " 10 s", 12.345: " 12.3 s", 123.456: " 123 s", 9876.5: " 9876 s", 200: " 200 s", -0.25: " -0.25 s",
	} {
		if got := row(result.SyncTotal, result.KubeHop, 5, value).String(); !strings.HasSuffix(got, want) {
			t.Errorf("%g: %q, want the end %q", value, got, want)
		}
	}
}

// TestCount: in a guest where an instruction takes a nanosecond, the time of a connection is the number of them.
func TestCount(t *testing.T) {
	got, ok := row(result.ConnectP50, result.KubeHop, 1000, 0.342).Count()
	if want := row(result.ConnectP50+result.Counted, result.KubeHop, 1000, 342); !ok || got != want {
		t.Errorf("got %v, %t; want %v", got, ok, want)
	}
	if got, ok := row(result.SyncTotal, result.KubeHop, 1000, 3).Count(); ok {
		t.Errorf("the time of a start is counted: %v", got)
	}
}
