package informers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// folderTest is a temporary folder and a source that runs on it.
type folderTest struct {
	*recorder
	t        *testing.T
	dir      string
	problems *problemLog
}

// newFolderTest starts the source on these files and reads the initial calls away.
func newFolderTest(t *testing.T, files map[string]string, prepare ...func(*Folder)) *folderTest {
	t.Helper()
	f := &folderTest{newRecorder(), t, t.TempDir(), newProblemLog()}
	for name, text := range files {
		f.write(name, text)
	}
	source := NewFolder(f.dir, "node-1")
	source.OnProblem, source.OnFileProblem = f.problems.add, f.problems.addFile
	for _, p := range prepare {
		p(source)
	}
	running(t, source.Run, f.recorder)
	f.await(t, "synced")
	return f
}

// write replaces a file the way careful programs do.
func (f *folderTest) write(name, text string) {
	f.t.Helper()
	tmp := filepath.Join(f.dir, ".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(f.dir, name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folderTest) remove(name string) {
	f.t.Helper()
	if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
		f.t.Fatal(err)
	}
}

// problem waits for the next reported problem.
func (f *folderTest) problem(want string) {
	f.t.Helper()
	if got := strings.ReplaceAll(f.problems.await(f.t), f.dir+"/", ""); got != want {
		f.t.Fatalf("problem %q, want %q", got, want)
	}
}

func svcYAML(name, ip string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {clusterIP: " + ip + ", ports: [{port: 80}]}\n"
}

func TestFolderFollowsChanges(t *testing.T) {
	f := newFolderTest(t, map[string]string{"web.yaml": webYAML})
	f.write("db.yaml", svcYAML("db", "10.96.0.20"))
	f.expect(t, "set default/db")
	f.write("db.yaml", svcYAML("db", "10.96.0.21"))
	f.expect(t, "set default/db")
	f.write("db.yaml", "# moved\n"+svcYAML("db", "10.96.0.21")) // says the same
	f.write("node.yaml", nodeYAML)
	f.expect(t, "node node-1[10.0.0.1]", "cidrs [10.96.0.0/12]")
	f.remove("node.yaml")
	f.expect(t, "node node-1[]", "cidrs []")
	f.remove("web.yaml")
	f.expect(t, "delete default/web", "delete slice default/web-1")
	f.quiet(t)
}

func TestFolderWrittenInPlace(t *testing.T) {
	f := newFolderTest(t, nil)
	if err := os.WriteFile(filepath.Join(f.dir, "a.yaml"), []byte(svcYAML("a", "10.96.0.1")), 0o600); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "set default/a")
}

func TestFolderBrokenFileKeepsLastGoodContent(t *testing.T) {
	f := newFolderTest(t, map[string]string{"a.yaml": svcYAML("a", "10.96.0.1"), "b.yaml": svcYAML("b", "10.96.0.2")})
	f.write("a.yaml", svcYAML("a", "10.96.0.9")+"specs: {}\n")
	f.problem(`a.yaml: document 1: Service default/a: unknown field "specs"`)
	f.write("b.yaml", svcYAML("b", "10.96.0.3"))
	f.expect(t, "set default/b")
	if s, _ := f.service("a"); s.ClusterIPs[0].String() != "10.96.0.1" {
		t.Errorf("a has %v", s.ClusterIPs)
	}
	f.write("a.yaml", "kind: [\n")
	f.problem("a.yaml: document 1: line 1: did not find expected node content")
	f.write("a.yaml", svcYAML("a", "10.96.0.9"))
	f.expect(t, "set default/a")
	f.write("a.yaml", "kind: [\n")
	f.problem("a.yaml: document 1: line 1: did not find expected node content") // a new episode
	f.remove("a.yaml")
	f.expect(t, "delete default/a")
	f.quiet(t)
}

func TestFolderStartsWithBrokenFile(t *testing.T) {
	f := newFolderTest(t, map[string]string{"a.yaml": svcYAML("a", "10.96.0.1") + "---\nkind: [\n"})
	if _, ok := f.service("a"); !ok {
		t.Error("what can be read is not in force")
	}
	f.problem("a.yaml: document 2: line 6: did not find expected node content")
}

func TestFolderDuplicateHealsWhenTheFirstGoes(t *testing.T) {
	f := newFolderTest(t, map[string]string{"a.yaml": svcYAML("a", "10.96.0.1"), "b.yaml": svcYAML("a", "10.96.0.2")})
	f.problem("b.yaml: document 1: Service default/a: already defined in a.yaml, document 1; ignored")
	f.remove("a.yaml")
	f.expect(t, "set default/a")
	if s, _ := f.service("a"); s.ClusterIPs[0].String() != "10.96.0.2" {
		t.Errorf("a has %v", s.ClusterIPs)
	}
}

func TestFolderReportsProblemsOnce(t *testing.T) {
	bad := strings.Replace(svcYAML("a", "10.96.0.1"), "ports:", "externalIPs: [x], ports:", 1)
	f := newFolderTest(t, map[string]string{"a.yaml": bad})
	f.problem(`Service default/a: spec.externalIPs[0]: "x": must be an IP address; ignored`)
	f.write("a.yaml", strings.Replace(bad, "10.96.0.1", "10.96.0.2", 1))
	f.expect(t, "set default/a")
	if got := f.problems.drain(); got != nil {
		t.Errorf("reported again: %q", got)
	}
}

// A ConfigMap volume: files are links into ..data, which is a link that is swapped.
func TestFolderConfigMapVolume(t *testing.T) {
	dir := t.TempDir()
	link := func(to, from string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	version := func(name, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", svcYAML("a", "10.96.0.1"))
	link("..1", "..data")
	link("..data/a.yaml", "a.yaml")
	r := newRecorder()
	running(t, NewFolder(dir, "node-1").Run, r)
	r.expect(t, "node node-1[]", "cidrs []", "set default/a", "synced")

	version("..2", svcYAML("a", "10.96.0.2"))
	link("..2", "..data_tmp")
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "set default/a")
	if s, _ := r.service("a"); s.ClusterIPs[0].String() != "10.96.0.2" {
		t.Errorf("a has %v", s.ClusterIPs)
	}
}

// Changes behind a link are not announced; the rescan finds them. So it does when inotify is not to be had.
func TestFolderRescan(t *testing.T) {
	for name, notify := range map[string]func(string) (*fsnotify.Watcher, error){
		"behind a link": watchDir,
		"no inotify":    func(string) (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") },
	} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "target")
			if err := os.WriteFile(target, []byte(svcYAML("a", "10.96.0.1")), 0o600); err != nil {
				t.Fatal(err)
			}
			f := newFolderTest(t, nil, func(source *Folder) {
				source.rescan, source.notify = 5*time.Millisecond, notify
				if err := os.Symlink(target, filepath.Join(source.dir, "a.yaml")); err != nil {
					t.Fatal(err)
				}
			})
			if err := os.WriteFile(target, []byte(svcYAML("a", "10.96.0.2")), 0o600); err != nil {
				t.Fatal(err)
			}
			for {
				f.await(t, "set default/a")
				if s, _ := f.service("a"); len(s.ClusterIPs) == 1 && s.ClusterIPs[0].String() == "10.96.0.2" {
					return
				}
			}
		})
	}
}

func TestFolderReplacedAsAWhole(t *testing.T) {
	var w *fsnotify.Watcher
	f := newFolderTest(t, map[string]string{"a.yaml": svcYAML("a", "10.96.0.1")}, func(source *Folder) {
		source.rescan = 5 * time.Millisecond
		source.notify = func(dir string) (_ *fsnotify.Watcher, err error) {
			w, err = watchDir(dir)
			return w, err
		}
	})
	if err := os.Rename(f.dir, f.dir+".old"); err != nil {
		t.Fatal(err)
	}
	f.quiet(t)
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.await(t, "delete default/a")
	// Changes are found by the rescans, and one of those watches the new folder.
	for n := range 100 {
		f.write("b.yaml", svcYAML("b", fmt.Sprint("10.96.0.", n+1)))
		f.await(t, "set default/b")
		if slices.Contains(w.WatchList(), f.dir) {
			return
		}
	}
	t.Error("the new folder is not watched")
}

func TestFolderUnreadableFile(t *testing.T) {
	f := newFolderTest(t, map[string]string{"a.yaml": svcYAML("a", "10.96.0.1")})
	if err := os.Symlink("nowhere", filepath.Join(f.dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	f.problem("b.yaml: cannot be read: no such file or directory")
}

func TestFolderMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	err := NewFolder(dir, "node-1").Run(t.Context(), newRecorder())
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("error %v", err)
	}
	if want := "informers: folder " + dir + ": no such file or directory"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if _, _, err := LoadFolder(dir, "node-1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LoadFolder: %v", err)
	}
}

func TestLoadFolderNamesFilesWithTheFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, problems, err := LoadFolder(dir, "node-1")
	if err != nil || len(problems) != 1 {
		t.Fatalf("%v, %v", problems, err)
	}
	if want := dir + "/a.yaml: document 1: must be an object, not string"; problems[0].Error() != want {
		t.Errorf("%q, want %q", problems[0], want)
	}
}
