// Package result is what the benchmark measures: its figures, how they are kept in a file, and the tables and the
// comparison with the targets that are made of them.
package result

import (
	"fmt"

	"github.com/kube-hop/kube-hop/e2e/jsonl"
)

// Result is one figure of one subject at one size.
type Result struct {
	Figure   string  `json:"figure"`   // ID of one of Figures
	Subject  string  `json:"subject"`  // such as kube-proxy-nftables
	Services int     `json:"services"` // how many there were
	Value    float64 `json:"value"`    // in the unit of the figure
	// AtLeast says that what was measured had not ended when its time was up, so that Value is less than the truth.
	AtLeast bool `json:"atLeast,omitempty"`
	// Samples is how many single measurements Value is made of; 0 for a figure that is one measurement.
	Samples int    `json:"samples,omitempty"`
	Note    string `json:"note,omitempty"` // one line about this measurement
	Version string `json:"version"`        // of the subject, as it prints it
	Kernel  string `json:"kernel"`         // as uname -r prints it
	// Shared says that others used the machine meanwhile.
	Shared bool   `json:"shared,omitempty"`
	Date   string `json:"date"` // such as 2026-11-25
}

// Count returns a time as the number of instructions that it is in a guest whose clock goes by them, and whether there is such a
// figure.
func (r Result) Count() (Result, bool) {
	const nanoseconds, thousand = 1e6, 1e3 // in a millisecond; the figure's unit
	r.Figure += Counted
	r.Value *= nanoseconds / thousand
	_, ok := figure(r.Figure)
	return r, ok
}

// String returns the line that shows the progress of a run.
func (r Result) String() string {
	title, unit := r.Figure, ""
	if f, ok := figure(r.Figure); ok {
		title, unit = f.Title, f.Unit
	}
	return fmt.Sprintf("== %-20s n=%-6d %-64s %s %s", r.Subject, r.Services, title, r.text(), unit)
}

// Append adds a result to a file.
func Append(path string, r Result) error { return jsonl.Append(path, r) }

// Read reads files that Append wrote. Of several results of one figure, subject and size the last one counts.
func Read(files ...string) ([]Result, error) { return jsonl.Read(files, Result.cell) }

// Keep writes results to a folder, one file for each subject, in place of those that are there.
func Keep(dir string, results []Result) error {
	book := newBook(results)
	var sorted []Result
	for _, c := range book.sorted() {
		sorted = append(sorted, book.cells[c])
	}
	return jsonl.Keep(dir, sorted, func(r Result) string { return r.Subject })
}

// cell is the place of a result in the tables.
type cell struct {
	figure, subject string
	services        int
}

func (r Result) cell() cell { return cell{r.Figure, r.Subject, r.Services} }
