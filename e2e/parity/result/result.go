// Package result is what a parity test reports about one row of the table and one subject, how it is kept in a file,
// and the table that is made of it.
package result

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/kube-hop/kube-hop/e2e/jsonl"
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

// Append adds a result to a file.
func Append(path string, r Result) error { return jsonl.Append(path, r) }

// Read reads files that Append wrote. Of several results of one row and subject the last one counts.
func Read(files ...string) ([]Result, error) {
	return jsonl.Read(files, func(r Result) [2]string { return [2]string{r.ID, r.Subject} })
}

// Keep writes results to a folder, one file for each subject, in place of those that are there.
func Keep(dir string, results []Result) error {
	return jsonl.Keep(dir, Sorted(results), func(r Result) string { return r.Subject })
}
