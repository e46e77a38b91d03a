// Command report makes docs/benchmarks.md out of files of results.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// run writes the tables of all results in the files. A name that ends in .txt is the output of the core's benchmark.
func run(files []string, w io.Writer) error {
	var all []result.Result
	var core []result.Core
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		var results []result.Result
		if strings.HasSuffix(name, ".txt") {
			core, err = result.ReadCore(f)
		} else {
			results, err = result.Read(f)
		}
		_ = f.Close() // was only read
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, results...)
	}
	return result.Write(w, all, core)
}
