package jsonl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/e2e/jsonl"
)

type value struct {
	Name string
	N    int
}

func (v value) name() string { return v.Name }

func read(t *testing.T, files ...string) []value {
	t.Helper()
	got, err := jsonl.Read(files, value.name)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func appendAll(t *testing.T, path string, values ...value) {
	t.Helper()
	for _, v := range values {
		if err := jsonl.Append(path, v); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLastCounts: of several values with one key the last counts, also over files, in the place of the first.
func TestLastCounts(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	appendAll(t, one, value{"a", 1}, value{"b", 2}, value{"a", 3})
	appendAll(t, two, value{"b", 4}, value{"c", 5})
	want := []value{{"a", 3}, {"b", 4}, {"c", 5}}
	if d := cmp.Diff(want, read(t, one, two)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

// TestKeep: files are replaced, and those of others stay.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "b.jsonl")
	appendAll(t, a, value{"a", 1}, value{"old", 1})
	appendAll(t, b, value{"b", 1})
	if err := jsonl.Keep(dir, []value{{"a", 2}}, value.name); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]value{{"a", 2}, {"b", 1}}, read(t, a, b)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

func TestReadSaysWhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	if err := os.WriteFile(path, []byte("{}\nno\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := jsonl.Read([]string{path}, value.name)
	if err == nil || !strings.Contains(err.Error(), path+", line 2") {
		t.Errorf("error %v, want one of %s, line 2", err, path)
	}
}
