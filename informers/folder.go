package informers

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/lb"
)

const (
	// settleQuiet is how long no further change may be seen before the folder is read: a file that is written in
	// several pieces, or several files that are copied, are read once and complete.
	settleQuiet = 20 * time.Millisecond
	// settleLimit bounds the wait when changes go on.
	settleLimit = 100 * time.Millisecond
	// rescanEvery is how often the folder is read without any notice: changes behind symbolic links are not
	// announced, nor those on network file systems.
	rescanEvery = 30 * time.Second
)

// Folder is the source that reads Kubernetes objects (Service, EndpointSlice, Node, ServiceCIDR, lists of them) from
// the *.yaml, *.yml and *.json files of a folder, and follows changes. Subfolders and hidden files are ignored.
//
// Decoding is strict. A file with a problem keeps its last version without problems in force; before there was one,
// all that can be read of it. Changes of the other files apply. A file that is removed takes its objects along.
type Folder struct {
	// OnProblem and OnFileProblem are called once for everything that cannot be used, and again if it was gone in
	// between; nil is fine. Set them before Run.
	OnProblem     func(Problem)
	OnFileProblem func(FileProblem)

	dir   string
	files *fileSet

	rescan time.Duration
	notify func(dir string) (*fsnotify.Watcher, error)

	last         Snapshot
	fileProblems []FileProblem
	unreadable   bool
}

// NewFolder returns a source that reads dir; nodeName is the Node it looks for in it. Nothing is read before
// [Folder.Run], which may be called once.
func NewFolder(dir, nodeName string) *Folder {
	return &Folder{
		dir:    dir,
		files:  newFileSet(os.DirFS(dir), dir, nodeName),
		rescan: rescanEvery,
		notify: watchDir,
	}
}

// watchDir asks the kernel to announce changes of a folder.
func watchDir(dir string) (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	if err := w.Add(dir); err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return w, nil
}

// Run reads the folder, hands everything over, calls Synced, and then hands over what changes until ctx ends. It
// returns nil then, and an error at once when the folder cannot be read at the start. A folder that disappears later
// is logged and looked for; what it said stays in force.
func (f *Folder) Run(ctx context.Context, sink lb.Sink) error {
	logger := klog.FromContext(ctx).WithValues("folder", f.dir)
	ctx = klog.NewContext(ctx, logger)
	if _, err := os.ReadDir(f.dir); err != nil {
		return fmt.Errorf("informers: folder %s: %w", f.dir, withoutPath(err))
	}
	// Watch first, read second: a change in between is then read twice instead of not at all.
	w, err := f.notify(f.dir)
	if err != nil {
		logger.Error(err, "Changes are not announced, so they are found late", "within", f.rescan)
		w = &fsnotify.Watcher{} // its nil channels never deliver
	} else {
		defer func() { _ = w.Close() }()
	}
	if err := f.reload(ctx); err != nil {
		return err
	}
	f.last.Feed(sink)
	f.follow(ctx, sink, w)
	return nil
}

// follow reads the folder again after each burst of changes and each rescan, until ctx ends.
func (f *Folder) follow(ctx context.Context, sink lb.Sink, w *fsnotify.Watcher) {
	events, failures := w.Events, w.Errors
	quiet, limit := stoppedTimer(), stoppedTimer()
	rescan := time.NewTicker(f.rescan)
	defer rescan.Stop()
	defer quiet.Stop()
	defer limit.Stop()
	pending := false
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			quiet.Reset(settleQuiet)
			if !pending {
				limit.Reset(settleLimit)
			}
			pending = true
			continue
		case err, ok := <-failures: // such as an overflow: something changed, nobody knows what
			if !ok {
				failures = nil
				continue
			}
			klog.FromContext(ctx).V(2).Info("Lost notices of changes", "err", err)
		case <-quiet.C:
		case <-limit.C:
		case <-rescan.C:
			// The folder itself may have been replaced, and then the watch is on the old one.
			if events != nil {
				_ = w.Remove(f.dir)
				_ = w.Add(f.dir)
			}
		}
		quiet.Stop()
		limit.Stop()
		pending = false
		f.apply(ctx, sink)
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// apply reads the folder and hands over what changed.
func (f *Folder) apply(ctx context.Context, sink lb.Sink) {
	old := f.last
	err := f.reload(ctx)
	if err != nil {
		if !f.unreadable {
			klog.FromContext(ctx).Error(err, "Folder lost, its last content stays in force")
		}
		f.unreadable = true
		return
	}
	f.unreadable = false
	f.last.feedSince(old, sink)
}

// reload brings f.last up to date and reports problems that were not there before.
func (f *Folder) reload(ctx context.Context) error {
	parsed, err := f.files.read()
	if err != nil {
		return err
	}
	logger := klog.FromContext(ctx)
	for _, p := range parsed {
		if len(p.content.ignored) > 0 {
			logger.V(1).Info("Ignored objects of other kinds", "file", p.path, "kinds", p.content.ignored)
		}
	}
	snapshot, problems := f.files.snapshot()
	for _, p := range without(problems, f.fileProblems) {
		logger.Error(p, "File not used as it is")
		if f.OnFileProblem != nil {
			f.OnFileProblem(p)
		}
	}
	for _, p := range without(snapshot.Problems, f.last.Problems) {
		logger.Info("Ignored unusable input", "problem", p.String())
		if f.OnProblem != nil {
			f.OnProblem(p)
		}
	}
	f.last, f.fileProblems = snapshot, problems
	return nil
}
