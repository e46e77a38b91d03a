// Command breaks proves that the end-to-end tests can fail: it breaks the daemon on purpose, in one way for each test at
// least. The table of breaks is breaks.txt; hack/breaks builds a daemon for each and runs its test.
//
//	breaks list [REGEXP]       prints the breaks: name, suite, test and what they break, separated by tabs
//	breaks write DIR [REGEXP]  does so too, and writes to DIR/NAME what go build -overlay needs to build the broken daemon
//
// The pattern chooses breaks whose name, suite or test matches. Both run in the root of the repository, of which nothing
// is changed.
package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

//go:embed breaks.txt
var table string

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "breaks:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	all, err := Parse(table)
	if err != nil {
		return err
	}
	dir := ""
	switch {
	case len(args) >= 1 && args[0] == "list":
		args = args[1:]
	case len(args) >= 2 && args[0] == "write":
		dir, args = args[1], args[2:]
	default:
		return errors.New("usage: breaks list [REGEXP] | write DIR [REGEXP]")
	}
	pattern, err := regexp.Compile(append(args, ".")[0])
	if err != nil {
		return err
	}
	n := 0
	for _, b := range all {
		if !pattern.MatchString(b.Name) && !pattern.MatchString(b.Suite+" "+b.Test) {
			continue
		}
		if dir != "" {
			if err := b.write(filepath.Join(dir, b.Name)); err != nil {
				return fmt.Errorf("break %s: %w", b.Name, err)
			}
		}
		n++
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", b.Name, b.Suite, b.Test, b.What)
	}
	if n == 0 {
		return fmt.Errorf("no break matches %q", pattern)
	}
	return nil
}

// broken returns the files that a break changes, as they are then, by path. It reads them below the root.
func (b Break) broken(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, e := range b.Edits {
		text, changed := files[e.File]
		if !changed {
			data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.File)))
			if err != nil {
				return nil, err
			}
			text = string(data)
		}
		var err error
		if files[e.File], err = e.Apply(text); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// write puts the broken files into a new folder, and overlay.json, which names them. Its form is that of go help build.
func (b Break) write(dir string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	files, err := b.broken(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	replace := map[string]string{}
	for name, text := range files {
		at := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			return err
		}
		replace[filepath.Join(root, filepath.FromSlash(name))] = at
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644)
}
