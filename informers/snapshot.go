package informers

import (
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/kube-hop/kube-hop/lb"
)

// Snapshot is what a folder says at one moment.
type Snapshot struct {
	// Services and Slices are sorted by name.
	Services []lb.Service
	Slices   []lb.EndpointSlice
	// Node has only a name when the folder has no Node of that name.
	Node lb.Node
	// NodeLabels are the labels of all Nodes, by name.
	NodeLabels map[string]map[string]string
	// ServiceCIDRs are the ranges of all ServiceCIDR objects, sorted, each once.
	ServiceCIDRs []netip.Prefix
	// Problems are items of objects that were left out, in the order of the files.
	Problems []Problem
}

// LoadFolder reads all files of a folder once, and the Node named nodeName among them. The error is for a folder that
// cannot be read; a FileProblem leaves the rest of its file and the other files in the Snapshot.
func LoadFolder(dir, nodeName string) (Snapshot, []FileProblem, error) {
	return load(newFileSet(os.DirFS(dir), dir, nodeName))
}

// Load is LoadFolder for the root of a file system. FileProblems name files relative to it.
func Load(fsys fs.FS, nodeName string) (Snapshot, []FileProblem, error) {
	return load(newFileSet(fsys, ".", nodeName))
}

func load(files *fileSet) (Snapshot, []FileProblem, error) {
	if _, err := files.read(); err != nil {
		return Snapshot{}, nil, err
	}
	s, problems := files.snapshot()
	return s, problems, nil
}

// Feed hands the snapshot over, Synced last.
func (s Snapshot) Feed(sink lb.Sink) {
	sink.SetNode(s.Node)
	sink.SetServiceCIDRs(s.ServiceCIDRs)
	s.feedLabels(Snapshot{}, sink)
	for _, svc := range s.Services {
		sink.SetService(svc)
	}
	for _, slice := range s.Slices {
		sink.SetEndpointSlice(slice)
	}
	sink.Synced()
}

// feedSince hands over what differs from an older snapshot, and nothing else.
func (s Snapshot) feedSince(old Snapshot, sink lb.Sink) {
	if !s.Node.Equal(old.Node) {
		sink.SetNode(s.Node)
	}
	if !slices.Equal(s.ServiceCIDRs, old.ServiceCIDRs) {
		sink.SetServiceCIDRs(s.ServiceCIDRs)
	}
	s.feedLabels(old, sink)
	feedChanged(old.Services, s.Services, serviceName, lb.Service.Equal, sink.SetService, sink.DeleteService)
	feedChanged(old.Slices, s.Slices, sliceName, lb.EndpointSlice.Equal, sink.SetEndpointSlice, sink.DeleteEndpointSlice)
}

// feedLabels hands over the labels of nodes, as far as they differ, if a Service's weights look at any.
func (s Snapshot) feedLabels(old Snapshot, sink lb.Sink) {
	looksAt := func(s Snapshot) map[string]map[string]string {
		if slices.ContainsFunc(s.Services, lb.Service.WeighsByNode) {
			return s.NodeLabels
		}
		return nil
	}
	before, after := looksAt(old), looksAt(s)
	for node, labels := range after {
		if was, known := before[node]; !known || !maps.Equal(was, labels) {
			sink.SetNodeLabels(node, labels)
		}
	}
	for node := range before {
		if _, ok := after[node]; !ok {
			sink.SetNodeLabels(node, nil)
		}
	}
}

func serviceName(s lb.Service) lb.Name     { return s.Name }
func sliceName(s lb.EndpointSlice) lb.Name { return s.Name }

// feedChanged sets before it deletes: endpoints that moved to a slice of another name are never missing.
func feedChanged[T any](old, cur []T, name func(T) lb.Name, equal func(a, b T) bool, set func(T), unset func(lb.Name)) {
	gone := make(map[lb.Name]T, len(old))
	for _, o := range old {
		gone[name(o)] = o
	}
	for _, c := range cur {
		o, known := gone[name(c)]
		delete(gone, name(c))
		if !known || !equal(o, c) {
			set(c)
		}
	}
	for _, o := range old {
		if _, ok := gone[name(o)]; ok {
			unset(name(o))
		}
	}
}

// pathIn is how problems name a file of a folder.
func pathIn(dir, name string) string { return filepath.Join(dir, name) }

// merge puts the files' objects together, in the order given. An object that is defined twice is reported; the first
// definition wins, whatever the others say.
func merge(files []*file, nodeName string) (Snapshot, []FileProblem) {
	type key struct {
		kind string
		name lb.Name
	}
	s := Snapshot{Node: lb.Node{Name: nodeName}, NodeLabels: map[string]map[string]string{}}
	var problems []FileProblem
	ranges := map[lb.Name][]netip.Prefix{}
	first := map[key]string{}
	for _, f := range files {
		problems = append(problems, f.problems...)
		for _, o := range f.content.objects {
			k := key{o.kind, o.name}
			if at, twice := first[k]; twice {
				problems = append(problems, FileProblem{
					File: f.path, Document: o.document, Object: objectName(o.kind, o.name.Namespace, o.name.Name),
					Message: "already defined in " + at + "; ignored",
				})
				continue
			}
			first[k] = fmt.Sprintf("%s, document %d", f.path, o.document)
			s.add(o, ranges)
		}
	}
	s.ServiceCIDRs = union(ranges)
	slices.SortFunc(s.Services, func(a, b lb.Service) int { return a.Name.Compare(b.Name) })
	slices.SortFunc(s.Slices, func(a, b lb.EndpointSlice) int { return a.Name.Compare(b.Name) })
	return s, problems
}

// add takes an object into the snapshot.
func (s *Snapshot) add(o object, ranges map[lb.Name][]netip.Prefix) {
	s.Problems = append(s.Problems, o.problems...)
	switch v := o.value.(type) {
	case lb.Service:
		s.Services = append(s.Services, v)
	case lb.EndpointSlice:
		s.Slices = append(s.Slices, v)
	case node:
		if v.Name == s.Node.Name {
			s.Node = v.Node
		}
		s.NodeLabels[v.Name] = v.labels
		if v.labels == nil {
			s.NodeLabels[v.Name] = map[string]string{}
		}
	case []netip.Prefix:
		ranges[o.name] = v
	}
}
