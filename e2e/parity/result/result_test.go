package result_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/e2e/parity/result"
)

func results() []result.Result {
	row := func(id, subject string, o result.Outcome, reason string) result.Result {
		return result.Result{
			ID: id, Title: "title of " + id, Subject: subject, Version: subject + " v1", Kernel: "6.12.0",
			Outcome: o, Reason: reason, Seconds: 1.5,
		}
	}
	return []result.Result{
		row("P17", "kube-proxy-ipvs", result.Fail, "10 | 20 streams cut"),
		row("P17", "kube-hop", result.Pass, ""),
		row("C-C-pod", "kube-proxy-ipvs", result.Pass, ""),
		row("P57", "kube-proxy-ipvs", result.NotApplicable, "no scheduler per Service"),
		row("P50", "kube-hop", result.Pass, "2 ms"),
		row("P-undef", "kube-hop", result.Pass, ""),
		row("C-C-pod", "another", result.Pass, ""),
	}
}

func TestTable(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := results()
	for range 20 { // in whatever order
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var got bytes.Buffer
		if err := result.Table(&got, all); err != nil {
			t.Fatal(err)
		}
		_, table, found := strings.Cut(got.String(), "run with it.\n\n")
		if !found {
			t.Fatalf("no preface:\n%s", got.String())
		}
		if d := cmp.Diff(string(want), table); d != "" {
			t.Fatalf("table (-want +got):\n%s\n%s", d, table)
		}
	}
}

func TestReadWhatAppendWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	all := results()
	again := all[0]
	again.Outcome = result.Pass
	for _, r := range append(all, again) {
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

func TestOneLine(t *testing.T) {
	if got := result.OneLine("\n first\nsecond"); got != "first" {
		t.Errorf("%q, want the first line", got)
	}
	long := result.OneLine(strings.Repeat("ä", 200))
	if len(long) > 210 || strings.ContainsRune(long, '�') {
		t.Errorf("%d bytes: %q", len(long), long)
	}
}
