// Package jsonl keeps the results of long runs in files, one line of JSON each, so that a run that is cut short keeps what
// it had.
package jsonl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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

// Read reads what Append wrote. Of several values with the same key the last one counts, in the place of the first.
func Read[T any, K comparable](r io.Reader, key func(T) K) ([]T, error) {
	at := map[K]int{}
	var out []T
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		var value T
		if err := json.Unmarshal(lines.Bytes(), &value); err != nil {
			return nil, fmt.Errorf("results, line %d: %w", n, err)
		}
		k := key(value)
		if i, ok := at[k]; ok {
			out[i] = value
			continue
		}
		at[k] = len(out)
		out = append(out, value)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return out, nil
}
