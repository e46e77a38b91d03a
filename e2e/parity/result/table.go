package result

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// preface is what the table begins with.
const preface = `# kube-hop beside kube-proxy

Made by ` + "`make parity`" + `; do not edit. Each row is one test with real packets on a real kernel, run with each subject in a
guest of its own: two nodes with the subject, one without, pods on each, an outside machine and a real API server.
**fail** is what was observed; the reasons are below the tables. "n/a" is a row that does not apply to the subject, "-" one
that has not been run with it.

`

// subjectOrder is the order of the columns; others come after them, by name.
var subjectOrder = []string{"kube-hop", "kube-proxy-ipvs", "kube-proxy-iptables", "kube-proxy-nftables"}

// Table writes the results as Markdown. The same results give the same bytes, in whatever order they come.
func Table(w io.Writer, results []Result) error {
	t := newTable(results)
	var b strings.Builder
	b.WriteString(preface)
	t.versions(&b)
	for _, section := range []struct {
		title string
		has   func(id string) bool
	}{
		{"Truth table", func(id string) bool { return !isProblem(id) }},
		{"Known problems", isProblem},
	} {
		t.section(&b, section.title, section.has)
	}
	t.reasons(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// isProblem tells the known problems, P01 and so on, from the rows of the truth table.
func isProblem(id string) bool { return len(id) >= 3 && id[0] == 'P' && id[1] >= '0' && id[1] <= '9' }

// table is the results by row and subject.
type table struct {
	subjects []string
	ids      []string
	titles   map[string]string
	cells    map[string]map[string]Result // by ID, then by subject
}

func newTable(results []Result) *table {
	t := &table{titles: map[string]string{}, cells: map[string]map[string]Result{}}
	for _, r := range Sorted(results) { // for rows whose title differs between runs
		if t.cells[r.ID] == nil {
			t.cells[r.ID] = map[string]Result{}
			t.ids = append(t.ids, r.ID)
			t.titles[r.ID] = r.Title
		}
		if !slices.Contains(t.subjects, r.Subject) {
			t.subjects = append(t.subjects, r.Subject)
		}
		t.cells[r.ID][r.Subject] = r
	}
	slices.Sort(t.ids)
	return t
}

// Sorted returns the results by subject, in the order of the columns, and row.
func Sorted(results []Result) []Result {
	results = slices.Clone(results)
	slices.SortStableFunc(results, func(a, b Result) int {
		return cmp.Or(bySubject(a.Subject, b.Subject), cmp.Compare(a.ID, b.ID))
	})
	return results
}

func bySubject(a, b string) int {
	rank := func(s string) int {
		if i := slices.Index(subjectOrder, s); i >= 0 {
			return i
		}
		return len(subjectOrder)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

// versions says what was run: every combination of version and kernel, which is one for each subject unless parts were
// run again.
func (t *table) versions(b *strings.Builder) {
	for _, s := range t.subjects {
		var runs []string
		n := map[Outcome]int{}
		for _, id := range t.ids {
			r, ok := t.cells[id][s]
			if !ok {
				continue
			}
			n[r.Outcome]++
			if run := fmt.Sprintf("%s on Linux %s", r.Version, r.Kernel); !slices.Contains(runs, run) {
				runs = append(runs, run)
			}
		}
		slices.Sort(runs)
		fmt.Fprintf(b, "- %s (%s): %d pass, %d fail, %d n/a\n", s, strings.Join(runs, "; "), n[Pass], n[Fail], n[NotApplicable])
	}
}

func (t *table) section(b *strings.Builder, title string, has func(string) bool) {
	fmt.Fprintf(b, "\n## %s\n\n| | what must hold | %s |\n|---|---|%s\n", title,
		strings.Join(t.subjects, " | "), strings.Repeat("---|", len(t.subjects)))
	for _, id := range t.ids {
		if !has(id) {
			continue
		}
		fmt.Fprintf(b, "| %s | %s |", id, cell(t.titles[id]))
		for _, s := range t.subjects {
			fmt.Fprintf(b, " %s |", t.outcome(id, s))
		}
		b.WriteByte('\n')
	}
}

func (t *table) outcome(id, subject string) string {
	switch r, ok := t.cells[id][subject]; {
	case !ok:
		return "-"
	case r.Outcome == Fail:
		return "**fail**"
	default:
		return string(r.Outcome)
	}
}

// reasons lists what was seen where a row failed, did not apply, or has something to say beside that it passed.
func (t *table) reasons(b *strings.Builder) {
	b.WriteString("\n## What was seen\n\n| | subject | |\n|---|---|---|\n")
	for _, id := range t.ids {
		for _, s := range t.subjects {
			if r, ok := t.cells[id][s]; ok && r.Reason != "" {
				fmt.Fprintf(b, "| %s | %s | %s: %s |\n", id, s, r.Outcome, cell(r.Reason))
			}
		}
	}
}

// cell keeps a text from ending a cell of the table.
func cell(text string) string { return strings.ReplaceAll(OneLine(text), "|", `\|`) }
