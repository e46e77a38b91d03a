// Command report makes the table of docs/parity.md out of files of results. Of several results of one row and subject the
// one in the last file counts.
//
// usage: report [-keep DIR] FILE...
//
// With -keep it also writes what counts to DIR, one file for each subject.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	var readers []io.Reader
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // is only read
		readers = append(readers, f)
	}
	all, err := result.Read(io.MultiReader(readers...))
	if err != nil {
		return err
	}
	if keep != "" {
		if err := write(keep, all); err != nil {
			return err
		}
	}
	return result.Table(w, all)
}

// write replaces the files of the subjects that have results.
func write(dir string, all []result.Result) error {
	files := map[string][]result.Result{}
	for _, r := range result.Sorted(all) {
		files[r.Subject] = append(files[r.Subject], r)
	}
	for subject, results := range files {
		path := filepath.Join(dir, subject+".jsonl")
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, r := range results {
			if err := result.Append(path, r); err != nil {
				return err
			}
		}
	}
	return nil
}
