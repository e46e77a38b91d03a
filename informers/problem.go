package informers

import (
	"strconv"
	"strings"

	"github.com/kube-hop/kube-hop/lb"
)

// maxValue is how many bytes of an offending value a [Problem] keeps; problems live as long as their object.
const maxValue = 128

// Problem is one item of a Kubernetes object that cannot be used. The rest of the object is used without it.
type Problem struct {
	// Object is kind and name, such as "Service default/web".
	Object string
	// Service and UID name the Service that the item is of; empty for objects of other kinds.
	Service lb.Name
	UID     string
	// Field is the path of the item, such as "spec.externalIPs[1]".
	Field string
	// Value is what was found there, shortened to 128 bytes; empty when nothing was.
	Value string
	// Allowed says what would be usable, such as "must be an IP address".
	Allowed string
}

// Error returns the problem as one line, with the value quoted.
func (p Problem) Error() string {
	if p.Value == "" {
		return p.Object + ": " + p.Field + ": " + p.Allowed + "; ignored"
	}
	return p.Object + ": " + p.Field + ": " + strconv.Quote(p.Value) + ": " + p.Allowed + "; ignored"
}

// String is Error; problems are printed more often than they are returned.
func (p Problem) String() string { return p.Error() }

// FileProblem is something in a file of a folder that cannot be used.
type FileProblem struct {
	// File is the path of the file, with the folder in front.
	File string
	// Document is the position in the file, from 1; zero when the problem concerns the whole file.
	Document int
	// Object is kind and name, such as "EndpointSlice default/web-1"; empty when unknown.
	Object string
	// Field is the path of the field, such as "endpoints[0].adresses"; empty when unknown. Message names it too.
	Field string
	// Message says what is wrong.
	Message string
}

// Error returns the problem as one line.
func (p FileProblem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	b.WriteString(": ")
	if p.Document > 0 {
		b.WriteString("document " + strconv.Itoa(p.Document) + ": ")
	}
	if p.Object != "" {
		b.WriteString(p.Object + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// String is Error.
func (p FileProblem) String() string { return p.Error() }

// report collects the problems of one object. Most objects have none, so names are printed only when
// there is something to say.
type report struct {
	kind, namespace, name string
	uid                   string // of a Service
	problems              []Problem
}

// kindService is the kind whose problems are told by events too.
const kindService = "Service"

// add records one problem.
func (r *report) add(field, value, allowed string) {
	if len(value) > maxValue {
		value = strings.ToValidUTF8(value[:maxValue], "") + "..."
	}
	p := Problem{
		Object:  objectName(r.kind, r.namespace, r.name),
		Field:   field,
		Value:   value,
		Allowed: allowed,
	}
	if r.kind == kindService {
		p.Service, p.UID = lb.Name{Namespace: r.namespace, Name: r.name}, r.uid
	}
	r.problems = append(r.problems, p)
}

// objectName prints an object as logs and problems name it.
func objectName(kind, namespace, name string) string {
	if namespace == "" {
		return kind + " " + name
	}
	return kind + " " + namespace + "/" + name
}

// item prints the path of an element of a list.
func item(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
