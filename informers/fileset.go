package informers

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// file is one file of a folder: its content in force, and what is wrong with it now.
type file struct {
	path     string // with the folder in front
	sum      [sha256.Size]byte
	content  content
	problems []FileProblem
	// sound is set when the content in force comes from a version of the file without problems. It stays in force
	// until the next such version. Before the first one, whatever can be read of the file is in force: a daemon that
	// starts with one misspelt field must not drop all traffic.
	sound bool
}

// fileSet is the state of a folder. Reading it again parses only the files whose bytes changed.
type fileSet struct {
	fsys     fs.FS
	dir      string // in front of file names, for messages
	nodeName string
	files    map[string]*file
}

func newFileSet(fsys fs.FS, dir, nodeName string) *fileSet {
	return &fileSet{
		fsys: fsys, dir: dir, nodeName: strings.ToLower(strings.TrimSpace(nodeName)), files: map[string]*file{},
	}
}

// isManifest reports whether a file of that name is read. Hidden files are not: editors and ConfigMap volumes keep
// their own things there.
func isManifest(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// read brings the state up to date. It returns the files whose content was parsed, sorted. On error, which means that
// the folder cannot be listed, nothing changes.
func (s *fileSet) read() ([]*file, error) {
	entries, err := fs.ReadDir(s.fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("informers: read folder %s: %w", s.dir, withoutPath(err))
	}
	present := map[string]bool{}
	var parsed []*file
	for _, e := range entries {
		if !isManifest(e.Name()) {
			continue
		}
		info, err := fs.Stat(s.fsys, e.Name()) // follows symbolic links, of which a ConfigMap volume consists
		if err == nil && !info.Mode().IsRegular() {
			continue
		}
		present[e.Name()] = true
		f := s.files[e.Name()]
		if f == nil {
			f = &file{path: pathIn(s.dir, e.Name())}
			s.files[e.Name()] = f
		}
		if f.read(s.fsys, e.Name()) {
			parsed = append(parsed, f)
		}
	}
	for name := range s.files {
		if !present[name] {
			delete(s.files, name)
		}
	}
	return parsed, nil
}

// read takes the bytes of the file in, and returns true when they are new.
func (f *file) read(fsys fs.FS, name string) bool {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		f.sum = [sha256.Size]byte{}
		f.problems = []FileProblem{{File: f.path, Message: "cannot be read: " + withoutPath(err).Error()}}
		return false
	}
	sum := sha256.Sum256(data)
	if sum == f.sum {
		return false
	}
	f.sum = sum
	c, problems := parseFile(f.path, data)
	f.problems = problems
	if len(problems) == 0 || !f.sound {
		f.content = c
		f.sound = len(problems) == 0
	}
	return true
}

// snapshot puts the files together, sorted by name.
func (s *fileSet) snapshot() (Snapshot, []FileProblem) {
	names := make([]string, 0, len(s.files))
	for n := range s.files {
		names = append(names, n)
	}
	slices.Sort(names)
	files := make([]*file, len(names))
	for i, n := range names {
		files[i] = s.files[n]
	}
	return merge(files, s.nodeName)
}

// withoutPath drops "open web.yaml:" from an error whose message names the file already.
func withoutPath(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}
	return err
}
