package informers

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kube-hop/kube-hop/lb"
)

// record is what an informer's cache keeps of an object: its key, its version and the converted value, whose slices
// the sink shares. A Service takes a few hundred bytes instead of some kilobytes.
//
// The cache needs no more than [metav1.Object] to accept it. Listers, which expect API types, are not used.
type record[T any] struct {
	metav1.Object // noMeta: answers what the cache never asks

	name     lb.Name
	version  string
	value    T
	problems []Problem
	proxied  bool
}

// GetNamespace is the first half of the cache key.
func (r *record[T]) GetNamespace() string { return r.name.Namespace }

// GetName is the second half of the cache key.
func (r *record[T]) GetName() string { return r.name.Name }

// GetResourceVersion lets the informer tell an update from a resync.
func (r *record[T]) GetResourceVersion() string { return r.version }

// resource is one watched kind: how to convert it, and what to do with the result. Its methods are the informer's
// transform and event handler. Neither is called by two goroutines at once.
type resource[T any] struct {
	convert func(obj any) (value T, problems []Problem, proxied bool)
	equal   func(a, b T) bool
	set     func(lb.Name, T)
	unset   func(lb.Name)
	report  func([]Problem)

	noMeta metav1.Object
}

// transform replaces an API object by its record. Records pass: a watch-list hands them in a second time.
func (r *resource[T]) transform(obj any) (any, error) {
	o, ok := obj.(metav1.Object)
	if _, done := obj.(*record[T]); done || !ok {
		return obj, nil
	}
	rec := &record[T]{
		Object:  r.noMeta,
		name:    lb.Name{Namespace: o.GetNamespace(), Name: o.GetName()},
		version: o.GetResourceVersion(),
	}
	rec.value, rec.problems, rec.proxied = r.convert(obj)
	return rec, nil
}

// OnAdd hands a new object over.
func (r *resource[T]) OnAdd(obj any, _ bool) {
	rec, ok := obj.(*record[T])
	if !ok {
		return
	}
	r.report(rec.problems)
	if rec.proxied {
		r.set(rec.name, rec.value)
	}
}

// OnUpdate hands over what changed for a proxy, and withdraws what is not proxied any longer. A resync, which shows
// the same record twice, hands the value over again.
func (r *resource[T]) OnUpdate(before, after any) {
	old, okOld := before.(*record[T])
	rec, ok := after.(*record[T])
	if !okOld || !ok {
		return
	}
	if old != rec {
		r.report(without(rec.problems, old.problems))
	}
	switch {
	case !rec.proxied && old.proxied:
		r.unset(rec.name)
	case !rec.proxied:
	case old == rec || !old.proxied || !r.equal(old.value, rec.value):
		r.set(rec.name, rec.value)
	}
}

// OnDelete withdraws an object. When the watch missed the deletion there is only a tombstone.
func (r *resource[T]) OnDelete(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
		if _, ok := obj.(*record[T]); !ok {
			r.unset(nameOfKey(t.Key))
			return
		}
	}
	if rec, ok := obj.(*record[T]); ok && rec.proxied {
		r.unset(rec.name)
	}
}

// nameOfKey splits a cache key; cluster-scoped objects have no namespace in it.
func nameOfKey(key string) lb.Name {
	namespace, name, ok := strings.Cut(key, "/")
	if !ok {
		return lb.Name{Name: key}
	}
	return lb.Name{Namespace: namespace, Name: name}
}

// without returns the elements of all that are not in known. Both are short.
func without[T comparable](all, known []T) []T {
	if len(all) == 0 || len(known) == 0 {
		return all
	}
	in := make(map[T]struct{}, len(known))
	for _, k := range known {
		in[k] = struct{}{}
	}
	var out []T
	for _, a := range all {
		if _, ok := in[a]; !ok {
			out = append(out, a)
		}
	}
	return out
}
