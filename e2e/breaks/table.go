package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Break is one way to break the daemon on purpose.
type Break struct {
	// Name is short and made of lower-case letters, digits and hyphens; files are named after it.
	Name string
	// What says what does not work any more.
	What string
	// Suite is the folder in e2e of the test that has to notice, Test its name as -test.run takes it, of a subtest with
	// slashes.
	Suite, Test string
	Edits       []Edit
}

// Edit replaces whole lines of one file.
type Edit struct {
	// File is relative to the root of the repository, with slashes.
	File string
	// Old and New are lines, each with its newline.
	Old, New string
}

// Parse reads a table of breaks; its form is described in breaks.txt. The error names the line.
func Parse(text string) ([]Break, error) {
	var p reader
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", i+1, line, err)
		}
	}
	for _, b := range p.breaks {
		if err := b.check(); err != nil {
			return nil, fmt.Errorf("break %s: %w", b.Name, err)
		}
	}
	return p.breaks, nil
}

// reader holds what was read so far. The last break, and its last edit, are those that lines belong to.
type reader struct{ breaks []Break }

func (p *reader) line(line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	word, rest, _ := strings.Cut(line, " ")
	if word == "break" {
		name, what, _ := strings.Cut(rest, ": ")
		p.breaks = append(p.breaks, Break{Name: name, What: what})
		return nil
	}
	if len(p.breaks) == 0 {
		return errors.New("comes before the first break")
	}
	b := &p.breaks[len(p.breaks)-1]
	switch {
	case word == "test":
		b.Suite, b.Test, _ = strings.Cut(rest, " ")
	case word == "file":
		b.Edits = append(b.Edits, Edit{File: rest})
	case strings.ContainsRune("-+ ", rune(line[0])) && len(b.Edits) > 0:
		b.Edits[len(b.Edits)-1].add(line)
	default:
		return errors.New("is neither break, test, file nor a line of a patch")
	}
	return nil
}

// add takes a line of a patch in.
func (e *Edit) add(line string) {
	text := line[1:] + "\n"
	if line[0] != '+' {
		e.Old += text
	}
	if line[0] != '-' {
		e.New += text
	}
}

// check reports what of a break is missing.
func (b Break) check() error {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	switch {
	case b.Name == "" || strings.Trim(b.Name, letters) != "":
		return fmt.Errorf("the name must be made of %s", letters)
	case b.What == "":
		return errors.New("it does not say what it breaks")
	case b.Suite == "" || b.Test == "":
		return errors.New("no suite and test")
	case len(b.Edits) == 0 || slices.ContainsFunc(b.Edits, func(e Edit) bool { return e.Old == "" || e.Old == e.New }):
		return errors.New("it changes nothing, or nobody knows where")
	}
	return nil
}

// Apply returns the file's text with the edit in it. The old lines must occur exactly once.
func (e Edit) Apply(text string) (string, error) {
	text = "\n" + text // so that old lines are whole lines
	at := strings.Index(text, "\n"+e.Old)
	if at < 0 || strings.LastIndex(text, "\n"+e.Old) != at {
		return "", fmt.Errorf("%s does not have these lines exactly once:\n%s", e.File, e.Old)
	}
	return text[1:at+1] + e.New + text[at+1+len(e.Old):], nil
}
