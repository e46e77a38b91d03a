// Package result is what a parity test reports about one row of the table and one subject, how it is kept in a file,
// and the table that is made of it.
package result

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// Outcome is how a row ended for a subject.
type Outcome string

// The outcomes. A row without a result did not run, or its run broke.
const (
	Pass          Outcome = "pass"
	Fail          Outcome = "fail"
	NotApplicable Outcome = "n/a"
)

// Result is one row for one subject.
type Result struct {
	ID      string  `json:"id"`      // of the row, such as P17 or X-L-out-V
	Title   string  `json:"title"`   // what must hold
	Subject string  `json:"subject"` // such as kube-proxy-ipvs
	Version string  `json:"version"` // of the subject, as it prints it
	Kernel  string  `json:"kernel"`  // as uname -r prints it
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"` // one line: what was seen, or why the row does not apply; of a pass, figures
	Seconds float64 `json:"seconds"`          // that it took
}

// String returns the line that shows the progress of a run.
func (r Result) String() string {
	line := fmt.Sprintf("== %-5s %-14s %s (%.1f s)", r.Outcome, r.ID, r.Title, r.Seconds)
	if r.Reason != "" {
		line += "\n         " + r.Reason
	}
	return line
}

// maxReason is the longest reason in bytes.
const maxReason = 200

// OneLine returns the first line of a text, cut to a length that fits a table.
func OneLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) <= maxReason {
		return line
	}
	line = line[:maxReason]
	for !utf8.ValidString(line) {
		line = line[:len(line)-1]
	}
	return line + "…"
}

// Append adds a result to a file, as one line of JSON; a run that is cut short keeps what it had.
func Append(path string, r Result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("result %s: %w", r.ID, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("append result %s: %w", r.ID, err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("append result %s: %w", r.ID, err)
	}
	return nil
}

// Read reads what Append wrote. Of several results of one row and subject the last one counts.
func Read(r io.Reader) ([]Result, error) {
	type key struct{ id, subject string }
	at := map[key]int{}
	var out []Result
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		var res Result
		if err := json.Unmarshal(lines.Bytes(), &res); err != nil {
			return nil, fmt.Errorf("results, line %d: %w", n, err)
		}
		k := key{res.ID, res.Subject}
		if i, ok := at[k]; ok {
			out[i] = res
			continue
		}
		at[k] = len(out)
		out = append(out, res)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return out, nil
}
