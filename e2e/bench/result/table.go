package result

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// preface is what the document begins with.
const preface = `# How fast

Made by ` + "`make bench`" + ` or ` + "`make bench-quick`" + `; do not edit. Each subject has a guest of its own, with the same real API
server, the same stored objects and the same changes; see [e2e/bench](../e2e/bench). Every Service has ten endpoints.

Times are those of the machine, which usually emulates its processor and is 10 to 20 times slower than a real one: what
counts are ratios. A ratio above 1 is in kube-hop's favour. "-" was not measured; "> 900" had not ended after that time.
What the commands of a subject use (kube-proxy starts nft and ipset) is in its processor time and not in its memory.

Instructions are counted in a guest of its own, with one processor whose clock goes by them: all that it runs from the
client's first system call until the answer is there, for both ends and the kernel between them. Two runs differ by a few per
cent, whatever else the machine does.

`

// The subjects that tables and targets know.
const (
	KubeHop  = "kube-hop"
	NFTables = "kube-proxy-nftables"
	IPVS     = "kube-proxy-ipvs"
)

// subjectOrder is the order of the columns; others come after them, by name.
var subjectOrder = []string{KubeHop, NFTables, IPVS}

// book is all results by place.
type book struct {
	cells    map[cell]Result
	subjects []string
	sizes    []int // ascending
}

func newBook(results []Result) *book {
	b := &book{cells: map[cell]Result{}}
	for _, r := range results {
		b.cells[r.cell()] = r
		if !slices.Contains(b.subjects, r.Subject) {
			b.subjects = append(b.subjects, r.Subject)
		}
		if !slices.Contains(b.sizes, r.Services) {
			b.sizes = append(b.sizes, r.Services)
		}
	}
	slices.Sort(b.sizes)
	slices.SortFunc(b.subjects, func(x, y string) int { return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x, y)) })
	return b
}

func rank(subject string) int {
	if i := slices.Index(subjectOrder, subject); i >= 0 {
		return i
	}
	return len(subjectOrder)
}

// get returns a result and whether there is one.
func (b *book) get(figure, subject string, services int) (Result, bool) {
	r, ok := b.cells[cell{figure, subject, services}]
	return r, ok
}

// Write writes everything as Markdown. The same results give the same bytes, in whatever order they come.
func Write(w io.Writer, results []Result, core []Core) error {
	book := newBook(results)
	var out strings.Builder
	out.WriteString(preface)
	book.machine(&out)
	book.targets(&out)
	writeCore(&out, core)
	for _, n := range book.sizes {
		book.table(&out, n)
	}
	book.notes(&out)
	_, err := io.WriteString(w, out.String())
	return err
}

// machine says what was run where: one line for each subject unless parts were run again elsewhere.
func (b *book) machine(out *strings.Builder) {
	runs, shared := map[string][]string{}, false
	for _, c := range b.sorted() {
		r := b.cells[c]
		if run := fmt.Sprintf("%s on Linux %s, %s", r.Version, r.Kernel, r.Date); !slices.Contains(runs[r.Subject], run) {
			runs[r.Subject] = append(runs[r.Subject], run)
		}
		shared = shared || r.Shared
	}
	for _, s := range b.subjects {
		fmt.Fprintf(out, "- %s: %s\n", s, strings.Join(runs[s], "; "))
	}
	if shared {
		out.WriteString("\n**Others used the machine while this was measured: look at the ratios with suspicion.**\n")
	}
}

// sorted returns all cells in the order of the tables.
func (b *book) sorted() []cell {
	order := map[string]int{}
	for i, f := range Figures() {
		order[f.ID] = i
	}
	return slices.SortedFunc(maps.Keys(b.cells), func(x, y cell) int {
		return cmp.Or(cmp.Compare(rank(x.subject), rank(y.subject)), cmp.Compare(x.subject, y.subject),
			cmp.Compare(x.services, y.services), cmp.Compare(order[x.figure], order[y.figure]), cmp.Compare(x.figure, y.figure))
	})
}

// table is the figures of one size, with the ratios between kube-hop and each other subject.
func (b *book) table(out *strings.Builder, n int) {
	peers := slices.DeleteFunc(slices.Clone(b.subjects), func(s string) bool { return s == KubeHop })
	heads := slices.Clone(b.subjects)
	for _, p := range peers {
		heads = append(heads, "ratio to "+p)
	}
	fmt.Fprintf(out, "\n## %s Services\n\n| | unit | %s |\n|---|---|%s\n", thousands(n), strings.Join(heads, " | "), strings.Repeat("---:|", len(heads)))
	for _, f := range Figures() {
		var row []string
		found := false
		for _, s := range b.subjects {
			r, ok := b.get(f.ID, s, n)
			found = found || ok
			if ok {
				row = append(row, r.text())
			} else {
				row = append(row, "-")
			}
		}
		for _, p := range peers {
			row = append(row, b.favour(f, p, n))
		}
		if found {
			fmt.Fprintf(out, "| %s | %s | %s |\n", f.Title, f.Unit, strings.Join(row, " | "))
		}
	}
}

// favour is how many times better kube-hop is than the peer.
func (b *book) favour(f Figure, peer string, n int) string {
	hop, hopOK := b.get(f.ID, KubeHop, n)
	other, otherOK := b.get(f.ID, peer, n)
	if !hopOK || !otherOK || f.Plain || hop.AtLeast {
		return "-"
	}
	worse, better := other, hop
	if f.Higher {
		worse, better = hop, other
	}
	if better.Value <= 0 || worse.Value <= 0 {
		return "-"
	}
	text := digits(worse.Value / better.Value)
	if worse.AtLeast {
		return "> " + text
	}
	return text
}

// notes lists what single measurements have to say, each text once for all whose it is.
func (b *book) notes(out *strings.Builder) {
	whose := map[string][]string{} // by figure and text
	for _, c := range b.sorted() {
		if text := b.cells[c].remark(); text != "" {
			key := c.figure + "\x00" + text
			whose[key] = append(whose[key], fmt.Sprintf("%s %s", c.subject, thousands(c.services)))
		}
	}
	if len(whose) == 0 {
		return
	}
	out.WriteString("\n## Notes\n\n| | | subject and Services |\n|---|---|---|\n")
	for _, f := range Figures() {
		for _, key := range slices.Sorted(maps.Keys(whose)) {
			if text, ok := strings.CutPrefix(key, f.ID+"\x00"); ok {
				fmt.Fprintf(out, "| %s | %s | %s |\n", f.Title, text, strings.Join(whose[key], ", "))
			}
		}
	}
}

// remark is what a result has to say beside its value. A quantile leaves it to the first of its kind, unless it had
// not ended.
func (r Result) remark() string {
	if f, ok := figure(r.Figure); ok && strings.HasPrefix(f.Title, same) && !r.AtLeast {
		return ""
	}
	var parts []string
	if r.Samples > 0 {
		parts = append(parts, fmt.Sprintf("%d measurements", r.Samples))
	}
	if r.Note != "" {
		parts = append(parts, strings.ReplaceAll(r.Note, "|", `\|`))
	}
	return strings.Join(parts, "; ")
}

// thousands writes 20000 as 20,000.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
