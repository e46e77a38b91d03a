// Command report makes docs/benchmarks.md out of files of results. Of several results of one figure, subject and size the
// one in the last file counts.
//
// usage: report [-core FILE] [-keep DIR] FILE...
//
// With -core it also shows the output of the core's benchmark, with -keep it writes what counts to DIR, one file for each
// subject.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

func main() {
	core := flag.String("core", "", "output of the benchmark of the core")
	keep := flag.String("keep", "", "folder for the results that count")
	flag.Parse()
	if err := run(*core, *keep, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// run writes the tables of all results in the files.
func run(core, keep string, files []string, w io.Writer) error {
	all, err := result.Read(files...)
	if err != nil {
		return err
	}
	var alone []result.Core
	if core != "" {
		if alone, err = readCore(core); err != nil {
			return err
		}
	}
	if keep != "" {
		if err := result.Keep(keep, all); err != nil {
			return err
		}
	}
	return result.Write(w, all, alone)
}

func readCore(name string) ([]result.Core, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // is only read
	return result.ReadCore(f)
}
