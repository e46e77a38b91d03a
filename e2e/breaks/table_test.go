package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func breaks(t *testing.T) []Break {
	t.Helper()
	all, err := Parse(table)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestTableFits: a break rots when the code that it breaks changes. Then it is to be written anew, not dropped.
func TestTableFits(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range breaks(t) {
		if seen[b.Name] {
			t.Errorf("two breaks are called %s", b.Name)
		}
		seen[b.Name] = true
		files, err := b.broken(root)
		if err != nil {
			t.Errorf("break %s: %v", b.Name, err)
		}
		for name, text := range files {
			if strings.HasPrefix(name, "e2e/") || strings.HasSuffix(name, "_test.go") {
				t.Errorf("break %s changes %s, want what the daemon is built of", b.Name, name)
			}
			if _, err := parser.ParseFile(token.NewFileSet(), name, text, 0); err != nil {
				t.Errorf("break %s: %v", b.Name, err)
			}
		}
	}
}

// TestEveryTestIsBroken: each test of e2e/suite was seen to fail, and each break names a test that there is.
func TestEveryTestIsBroken(t *testing.T) {
	known, broken := map[string]bool{}, map[string]bool{}
	for _, suite := range []string{"suite", "apitest"} {
		for _, name := range testsOf(t, suite) {
			known[suite+" "+name] = true
		}
	}
	for _, b := range breaks(t) {
		test := b.Suite + " " + b.Test
		broken[test] = true
		if !known[test] {
			t.Errorf("break %s is for %s, which there is not", b.Name, test)
		}
	}
	for test := range known {
		if strings.HasPrefix(test, "suite ") && !broken[test] {
			t.Errorf("%s has no break: it was never seen to fail", test)
		}
	}
}

// testsOf returns the tests of a folder in e2e. Where a test has a table of named functions, testX being that of subtest
// X, they count as tests too.
func testsOf(t *testing.T, suite string) (out []string) {
	t.Helper()
	files, err := fs.Glob(os.DirFS(filepath.Join(root, "e2e", suite)), "*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in e2e/%s (%v)", suite, err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "e2e", suite, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			if sub, ok := strings.CutPrefix(fn.Name.Name, "test"); ok {
				out = append(out, "TestAPI/"+sub)
			} else if strings.HasPrefix(fn.Name.Name, "Test") && fn.Name.Name != "TestMain" {
				out = append(out, fn.Name.Name)
			}
		}
	}
	return out
}

func TestParse(t *testing.T) {
	const head = "break a-1: all of it\ntest suite TestA\nfile a/b.go\n"
	got, err := Parse("# comment\n\n" + head + " stays\n-goes\n+comes\n-\tgoes too\n")
	want := []Break{{
		Name: "a-1", What: "all of it", Suite: "suite", Test: "TestA",
		Edits: []Edit{{File: "a/b.go", Old: "stays\ngoes\n\tgoes too\n", New: "stays\ncomes\n"}},
	}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, wrong := range []string{
		"-goes\n",
		"test suite TestA\n",
		head + "goes\n",
		head,
		head + " stays\n",
		head + "+comes\n",
		strings.Replace(head, "a-1", "A/1", 1) + "-goes\n",
		strings.Replace(head, ": all of it", "", 1) + "-goes\n",
		strings.Replace(head, " TestA", "", 1) + "-goes\n",
	} {
		if got, err := Parse(wrong); err == nil {
			t.Errorf("%q was accepted: %+v", wrong, got)
		}
	}
}

func TestApply(t *testing.T) {
	e := Edit{File: "f", Old: "b\nc\n", New: "x\n"}
	for text, want := range map[string]string{
		"a\nb\nc\nd\n": "a\nx\nd\n", "b\nc\n": "x\n", // found
		"a\nbb\nc\n": "", "b\nc": "", "": "", "b\nc\nb\nc\n": "", // not once
	} {
		got, err := e.Apply(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q becomes %q, %v, want %q", text, got, err, want)
		}
	}
}
