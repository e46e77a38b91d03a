// Package jsonl keeps the results of long runs in files, one line of JSON each, so that a run that is cut short keeps what
// it had, and those of several runs together are one table.
package jsonl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Append adds a value to a file, which it makes if there is none.
func Append(path string, value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("append to %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("append a line: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("append a line: %w", err)
	}
	return nil
}

// Read reads files that Append wrote, one after the other. Of several values with the same key the last one counts, in the
// place of the first.
func Read[T any, K comparable](names []string, key func(T) K) ([]T, error) {
	at := map[K]int{}
	var out []T
	for _, name := range names {
		values, err := readFile[T](name)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			k := key(v)
			if i, ok := at[k]; ok {
				out[i] = v
				continue
			}
			at[k] = len(out)
			out = append(out, v)
		}
	}
	return out, nil
}

func readFile[T any](name string) ([]T, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	defer func() { _ = f.Close() }() // is only read
	var out []T
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var value T
		if err := json.Unmarshal(lines.Bytes(), &value); err != nil {
			return nil, fmt.Errorf("results: %s, line %d: %w", name, n, err)
		}
		out = append(out, value)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("results: %s: %w", name, err)
	}
	return out, nil
}

// Keep writes values to a folder, to one file for each name, in place of those that are there. Other files stay.
func Keep[T any](dir string, values []T, name func(T) string) error {
	begun := map[string]bool{}
	for _, v := range values {
		path := filepath.Join(dir, name(v)+".jsonl")
		if !begun[path] {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("replace results: %w", err)
			}
			begun[path] = true
		}
		if err := Append(path, v); err != nil {
			return err
		}
	}
	return nil
}
