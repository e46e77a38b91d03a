// Command report makes the table of docs/parity.md out of files of results. Of several results of one row and subject the
// one in the last file counts.
//
// usage: report [-keep DIR] FILE...
//
// With -keep it also writes what counts to DIR, one file for each subject.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/kube-hop/kube-hop/e2e/parity/result"
)

func main() {
	keep := flag.String("keep", "", "folder for the results that count")
	flag.Parse()
	if err := run(*keep, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// run writes the table of all results in the files.
func run(keep string, files []string, w io.Writer) error {
	all, err := result.Read(files...)
	if err != nil {
		return err
	}
	if keep != "" {
		if err := result.Keep(keep, all); err != nil {
			return err
		}
	}
	return result.Table(w, all)
}
