package informers

import (
	stdjson "encoding/json"
	"errors"
	"path"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/json"

	"github.com/kube-hop/kube-hop/lb"
)

// object is one Kubernetes object of a file, converted.
type object struct {
	kind     string
	name     lb.Name
	document int
	// value is a lb.Service, lb.EndpointSlice, node or []netip.Prefix; nil when a proxy has nothing to do with it.
	// Such objects are kept, for they too may be defined twice.
	value    any
	problems []Problem
}

// node is a Node with its labels, of which lb.Node has no need.
type node struct {
	lb.Node
	labels map[string]string
}

// content is what a file holds.
type content struct {
	objects []object
	// ignored are the kinds that no proxy looks at, such as Deployment, in order of appearance.
	ignored []string
}

// decoder reads one file.
type decoder struct {
	file     string
	content  content
	problems []FileProblem
	inList   bool // between the items of a list
}

// parseFile reads a file. It returns every object that can be read, next to everything that cannot.
func parseFile(file string, data []byte) (content, []FileProblem) {
	d := &decoder{file: file}
	if path.Ext(file) == ".json" {
		docs, bad, err := splitJSON(data)
		for _, doc := range docs {
			d.object(doc.number, doc.data, metav1.TypeMeta{})
		}
		if err != nil {
			d.problem(bad.number, "", "", err.Error())
		}
		return d.content, d.problems
	}
	for _, doc := range splitYAML(data) {
		d.yaml(doc)
	}
	return d.content, d.problems
}

func (d *decoder) problem(doc int, object, field, message string) {
	d.problems = append(d.problems, FileProblem{File: d.file, Document: doc, Object: object, Field: field, Message: message})
}

// yaml reads a YAML document. With a key twice the object counts as unreadable; it is decoded for its name alone.
func (d *decoder) yaml(doc document) {
	data, problems := doc.toJSON()
	if len(problems) == 0 {
		d.object(doc.number, data, metav1.TypeMeta{})
		return
	}
	var h header
	name := ""
	if err := json.UnmarshalCaseSensitivePreserveInts(data, &h); err == nil {
		name = h.object()
	}
	for _, p := range problems {
		d.problem(doc.number, name, "", p)
	}
}

// header is what all objects have in common, and the items of lists.
type header struct {
	metav1.TypeMeta `json:",inline"`

	Metadata struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Items []stdjson.RawMessage `json:"items"`
}

// object names what the header belongs to, as far as it says; empty when it does not.
func (h *header) object() string {
	if h.Kind == "" {
		return ""
	}
	namespace := h.Metadata.Namespace
	if h.Kind == "Service" || h.Kind == "EndpointSlice" {
		namespace = namespaceOr(namespace)
	}
	return objectName(h.Kind, namespace, h.Metadata.Name)
}

// apiVersion is that of a kind that is read, empty for any other kind.
func apiVersion(kind string) string {
	switch kind {
	case "Service", "Node":
		return "v1"
	case "EndpointSlice":
		return "discovery.k8s.io/v1"
	case "ServiceCIDR":
		return "networking.k8s.io/v1"
	}
	return ""
}

// object reads one JSON object, or the items of a list. The type is that of the items of a typed list (ServiceList),
// which do not repeat it.
func (d *decoder) object(doc int, data []byte, typ metav1.TypeMeta) {
	h := header{TypeMeta: typ}
	if err := json.UnmarshalCaseSensitivePreserveInts(data, &h); err != nil {
		d.decodeError(doc, h.object(), err)
		return
	}
	if h.Kind == "" {
		d.problem(doc, "", "kind", `field "kind": must be set`)
		return
	}
	if kind, ok := strings.CutSuffix(h.Kind, "List"); ok && (kind == "" || apiVersion(kind) != "") {
		d.list(doc, kind, h)
		return
	}
	// A kind of the same name in another group is somebody else's.
	want := apiVersion(h.Kind)
	group, _, grouped := strings.Cut(h.APIVersion, "/")
	wantGroup, _, wantGrouped := strings.Cut(want, "/")
	if want == "" || h.APIVersion != "" && (grouped != wantGrouped || grouped && group != wantGroup) {
		d.content.ignored = append(d.content.ignored, h.Kind)
		return
	}
	name := lb.Name{Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}
	if h.APIVersion != want {
		d.problem(doc, h.object(), "apiVersion", `field "apiVersion": must be `+want)
		return
	}
	d.typed(doc, h.Kind, name, data)
}

// list reads the items of a list. One in a list is refused, since nobody writes that and depth would cost time.
func (d *decoder) list(doc int, kind string, h header) {
	if d.inList {
		d.problem(doc, "", "items", `field "items": must not hold a list`)
		return
	}
	d.inList = true
	defer func() { d.inList = false }()
	var items metav1.TypeMeta
	if kind != "" {
		items = metav1.TypeMeta{Kind: kind, APIVersion: h.APIVersion}
	}
	for _, i := range h.Items {
		d.object(doc, i, items)
	}
}

// typed decodes an object of a known kind, converts it and adds it to the content.
func (d *decoder) typed(doc int, kind string, name lb.Name, data []byte) {
	o := object{kind: kind, document: doc, name: name}
	ok := false
	switch kind {
	case "Service":
		o.name.Namespace = namespaceOr(name.Namespace)
		s := new(corev1.Service)
		ok = d.decode(&o, data, s) && d.portNames(&o, "spec.ports", servicePortNames(s))
		o.setService(s)
	case "EndpointSlice":
		o.name.Namespace = namespaceOr(name.Namespace)
		s := new(discoveryv1.EndpointSlice)
		ok = d.decode(&o, data, s) && d.portNames(&o, "ports", endpointPortNames(s))
		o.setEndpointSlice(s)
	case "Node":
		o.name.Namespace = ""
		n := new(corev1.Node)
		ok = d.decode(&o, data, n)
		o.value = node{FromNode(n), n.Labels}
	case "ServiceCIDR":
		o.name.Namespace = ""
		c := new(networkingv1.ServiceCIDR)
		ok = d.decode(&o, data, c)
		o.value, o.problems = FromServiceCIDR(c)
	}
	if ok {
		d.content.objects = append(d.content.objects, o)
	}
}

// portNames checks names that the API server would check: they end up in rule comments.
func (d *decoder) portNames(o *object, list string, names []string) bool {
	ok := true
	for i, n := range names {
		if n == "" {
			continue
		}
		field := item(list, i) + ".name"
		for _, e := range validation.IsDNS1123Label(n) {
			d.problem(o.document, objectName(o.kind, o.name.Namespace, o.name.Name), field, `field "`+field+`": `+e)
			ok = false
		}
	}
	return ok
}

// decode reads the object strictly. It returns false when the object cannot be used; an
// unknown field is reason enough, for it may be a misspelt one that matters.
func (d *decoder) decode(o *object, data []byte, into any) bool {
	text := objectName(o.kind, o.name.Namespace, o.name.Name)
	strict, err := json.UnmarshalStrict(data, into)
	if err != nil {
		d.decodeError(o.document, text, err)
		return false
	}
	for _, e := range strict {
		field := ""
		if at, ok := errors.AsType[json.FieldError](e); ok {
			field = at.FieldPath()
		}
		d.problem(o.document, text, field, e.Error())
	}
	ok := len(strict) == 0
	// Names end up in rule comments and log lines, so they have to be what the API server would admit.
	for _, e := range validation.IsDNS1123Subdomain(o.name.Name) {
		d.problem(o.document, text, "metadata.name", `field "metadata.name": `+e)
		ok = false
	}
	if o.name.Namespace != "" {
		for _, e := range validation.IsDNS1123Label(o.name.Namespace) {
			d.problem(o.document, text, "metadata.namespace", `field "metadata.namespace": `+e)
			ok = false
		}
	}
	return ok
}

// decodeError reports a value of the wrong type, or one that does not parse.
func (d *decoder) decodeError(doc int, object string, err error) {
	var typ *stdjson.UnmarshalTypeError
	if !errors.As(err, &typ) {
		d.problem(doc, object, "", err.Error())
		return
	}
	message := "must be " + typeName(typ.Type) + ", not " + typ.Value
	if typ.Field != "" {
		message = `field "` + typ.Field + `": ` + message
	}
	d.problem(doc, object, typ.Field, message)
}

// typeName says what a field takes in the words of JSON.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "a list"
	default:
		return t.Kind().String()
	}
}
