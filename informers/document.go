package informers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// document is one document of a file.
type document struct {
	number int // from 1, counted as an editor shows them
	line   int // lines of the file before it
	data   []byte
}

// splitYAML cuts a file at its document markers ("---" and "..." at the start of a line, YAML 1.2 section 9.1). What
// follows a marker on its line belongs to the new document. Documents that hold nothing but comments are left out
// but counted, except before the first marker: a licence header is no document.
func splitYAML(data []byte) []document {
	var out []document
	cur := document{number: 1}
	start, line, markers := 0, 0, 0
	flush := func(end int) {
		cur.data = data[start:end]
		if !isBlank(cur.data) {
			out = append(out, cur)
		}
	}
	for pos := 0; pos < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if isMarker(data[pos:end]) {
			flush(pos)
			next := cur.number + 1
			if markers == 0 && len(out) == 0 {
				next = 1
			}
			markers++
			start = pos + len("---")
			cur = document{number: next, line: line}
		}
		line++
		pos = end
	}
	flush(len(data))
	return out
}

// isMarker reports whether a line ends a document.
func isMarker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0
}

// isBlank reports whether there are only comments, directives and white space.
func isBlank(data []byte) bool {
	for l := range bytes.Lines(data) {
		l = bytes.TrimSpace(l)
		if len(l) > 0 && l[0] != '#' && l[0] != '%' {
			return false
		}
	}
	return true
}

// splitJSON cuts a file of one or more JSON values. After a syntax error nothing is known about the rest; the error
// names the document it is in.
func splitJSON(data []byte) (docs []document, bad document, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	for n := 1; ; n++ {
		var raw json.RawMessage
		at := bytes.Count(data[:d.InputOffset()], []byte("\n"))
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, document{}, nil
		}
		doc := document{number: n, line: at, data: raw}
		if err != nil {
			return docs, doc, err //nolint:wrapcheck // the caller adds file and document
		}
		docs = append(docs, doc)
	}
}

// yamlLine is how the YAML package names a place.
var yamlLine = regexp.MustCompile(`^(yaml: )?line (\d+): `)

// yamlErrors turns an error of the YAML package into one text per problem, with lines counted from the start of the
// file.
func yamlErrors(err error, before int) []string {
	text := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	lines := strings.Split(text, "\n")
	if len(lines) > 1 { // "yaml: unmarshal errors:", then one line for each
		lines = lines[1:]
	}
	for i, l := range lines {
		l = strings.TrimSpace(l)
		if m := yamlLine.FindStringSubmatch(l); m != nil {
			n, _ := strconv.Atoi(m[2])
			l = "line " + strconv.Itoa(n+before) + ": " + strings.TrimPrefix(l, m[0])
		}
		lines[i] = strings.TrimPrefix(l, "yaml: ")
	}
	return lines
}

// toJSON converts a YAML document. A key that appears twice is a problem, but what can be read is returned with it:
// it tells which object the problem is in.
func (d document) toJSON() (data []byte, problems []string) {
	data, err := yaml.YAMLToJSONStrict(d.data)
	if err == nil {
		return data, nil
	}
	problems = yamlErrors(err, d.line)
	data, err = yaml.YAMLToJSON(d.data)
	if err != nil {
		return nil, problems
	}
	return data, problems
}
