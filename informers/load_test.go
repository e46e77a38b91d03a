package informers

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-hop/kube-hop/lb"
)

const webYAML = `# licence header
---
apiVersion: v1
kind: Service
metadata: {name: web, uid: u1, creationTimestamp: "2023-11-14T22:13:20Z"}
spec:
  clusterIPs: [10.96.0.10, "fd00::10"]
  ports:
  - {name: http, port: 80}
--- # the endpoints
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
ports:
- {name: http, port: 8080}
endpoints:
- addresses: [10.244.1.5]
`

const nodeYAML = `
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/12]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {anything: goes}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: web}
spec: {template: {}}
`

func mapFS(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

// loadFiles loads a folder of these files and compares the problems.
func loadFiles(t *testing.T, files map[string]string, want ...string) Snapshot {
	t.Helper()
	s, problems, err := Load(mapFS(files), "Node-1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("file problems (-want +got):\n%s", d)
	}
	return s
}

func TestLoad(t *testing.T) {
	got := loadFiles(t, map[string]string{
		"web.yaml": webYAML, "node.yml": nodeYAML, "empty.json": "",
		".hidden.yaml": "kind: [", "notes.txt": "kind: [", "sub/web.yaml": "kind: [", "dir.yaml/x": "",
	})
	want := Snapshot{
		Services: []lb.Service{webModel()}, Slices: []lb.EndpointSlice{webSliceModel()},
		Node:         lb.Node{Name: "node-1", Addresses: addrs("10.0.0.1")},
		NodeLabels:   map[string]map[string]string{"node-1": {}},
		ServiceCIDRs: ranges("10.96.0.0/12"),
	}
	if d := cmp.Diff(want, got, loosely); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	want.NodeLabels = nil // no Service looks at them
	r := newRecorder()
	got.Feed(r)
	r.expect(t, "node node-1[10.0.0.1]", "cidrs [10.96.0.0/12]", "set default/web", "set slice default/web-1", "synced")
	if d := cmp.Diff(want, r.snapshot(), loosely); d != "" {
		t.Errorf("fed (-want +got):\n%s", d)
	}
}

func TestLoadDefaults(t *testing.T) {
	service := func(spec string) map[string]string {
		return map[string]string{"a.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: " + spec}
	}
	model := func(ips ...string) lb.Service {
		return lb.Service{
			Name: lb.Name{Namespace: "default", Name: "web"}, ClusterIPs: addrs(ips...),
			Ports: []lb.ServicePort{{Proto: lb.TCP, Port: 80}},
		}
	}
	for name, c := range map[string]struct {
		files    map[string]string
		want     []lb.Service
		problems []string
	}{
		"clusterIP alone":      {files: service(`{clusterIP: 10.96.0.1, ports: [{port: 80}]}`), want: []lb.Service{model("10.96.0.1")}},
		"IPv6 clusterIP alone": {files: service(`{clusterIP: "fd00::1", ports: [{port: 80}]}`), want: []lb.Service{model("fd00::1")}},
		"clusterIPs alone": {
			files: service(`{clusterIPs: [10.96.0.1, "fd00::1"], ports: [{port: 80}]}`),
			want:  []lb.Service{model("10.96.0.1", "fd00::1")},
		},
		"no clusterIP": {
			files:    service(`{ports: [{port: 80}]}`),
			problems: []string{`Service default/web: spec.clusterIP: must be set, for no API server allocates one; ignored`},
		},
		"headless": {files: service(`{clusterIP: None, ports: [{port: 80}]}`)},
		"bad clusterIP": {
			files: service(`{clusterIP: "10.96", ports: [{port: 80}]}`), want: []lb.Service{model()},
			problems: []string{`Service default/web: spec.clusterIP: "10.96": must be an IP address; ignored`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := loadFiles(t, c.files)
			if d := cmp.Diff(c.want, got.Services, loosely); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.problems, texts(got.Problems)); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
			if got.Node.Name != "node-1" {
				t.Errorf("node %+v", got.Node)
			}
		})
	}
	t.Run("slice", func(t *testing.T) {
		got := loadFiles(t, map[string]string{"a.yaml": `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.5]}]
`})
		want := webSliceModel()
		want.Ports[0].Name = ""
		if d := cmp.Diff([]lb.EndpointSlice{want}, got.Slices, loosely); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

func TestLoadLists(t *testing.T) {
	list := `{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.1"}},
  {"apiVersion": "v1", "kind": "Secret"}]}
`
	typed := `
apiVersion: v1
kind: ServiceList
metadata: {resourceVersion: "7"}
items:
- {metadata: {name: b, namespace: x}, spec: {clusterIP: 10.96.0.2}}
`
	got := loadFiles(t, map[string]string{"a.json": list + `{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"clusterIP":"10.96.0.3"}}`, "b.yaml": typed})
	var names []string
	for _, s := range got.Services {
		names = append(names, s.Name.String())
	}
	if d := cmp.Diff([]string{"default/a", "default/c", "x/b"}, names); d != "" {
		t.Error(d)
	}
}

func TestLoadFileProblems(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
	for name, c := range map[string]struct {
		text     string
		problems []string
		kept     int // Services
	}{
		"unknown field": {
			webYAML + "- adresses: [10.244.1.6]\n",
			[]string{`f.yaml: document 2: EndpointSlice default/web-1: unknown field "endpoints[1].adresses"`},
			1,
		},
		"duplicate field": {
			service + "spec:\n  clusterIP: 10.96.0.1\n  clusterIP: 10.96.0.2\n",
			[]string{`f.yaml: document 1: Service default/web: line 6: key "clusterIP" already set in map`},
			0,
		},
		"wrong type": {
			service + "spec: {clusterIP: 10.96.0.1, ports: [{port: http}]}\n",
			[]string{`f.yaml: document 1: Service default/web: field "spec.ports.port": must be int32, not string`},
			0,
		},
		"broken syntax": {
			webYAML + "---\nkind: [\n",
			[]string{`f.yaml: document 3: line 22: did not find expected node content`},
			1,
		},
		"several in one document": {
			service + "specs: {}\nstat: {}\n",
			[]string{
				`f.yaml: document 1: Service default/web: unknown field "specs"`,
				`f.yaml: document 1: Service default/web: unknown field "stat"`,
			},
			0,
		},
		"wrong version": {
			"apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: web-1}\n",
			[]string{`f.yaml: document 1: EndpointSlice default/web-1: field "apiVersion": must be discovery.k8s.io/v1`},
			0,
		},
		"no version": {
			"kind: Service\nmetadata: {name: web}\n",
			[]string{`f.yaml: document 1: Service default/web: field "apiVersion": must be v1`},
			0,
		},
		"no kind": {"apiVersion: v1\n", []string{`f.yaml: document 1: field "kind": must be set`}, 0},
		"text":    {"hello\n", []string{`f.yaml: document 1: must be an object, not string`}, 0},
		"no name": {
			"apiVersion: v1\nkind: Service\nspec: {clusterIP: 10.96.0.1}\n", []string{
				`f.yaml: document 1: Service default/: field "metadata.name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			}, 0,
		},
		"port name": {
			service + "spec: {clusterIP: 10.96.0.1, ports: [{name: \"a\\n-A\", port: 80}]}\n", []string{
				`f.yaml: document 1: Service default/web: field "spec.ports[0].name": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			}, 0,
		},
		"list in a list": {
			"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List}]\n",
			[]string{`f.yaml: document 1: field "items": must not hold a list`},
			0,
		},
		"defined twice": {
			webYAML + "---\n" + service + "spec: {clusterIP: 10.96.0.1}\n",
			[]string{`f.yaml: document 3: Service default/web: already defined in f.yaml, document 1; ignored`},
			1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := loadFiles(t, map[string]string{"f.yaml": c.text}, c.problems...)
			if len(got.Services) != c.kept {
				t.Errorf("%d services kept, want %d", len(got.Services), c.kept)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		loadFiles(t, map[string]string{
			"a.json": `{"apiVersion":"v1","kind":"Service","kind":"Service","metadata":{"name":"web"}}`,
			"b.json": `{"apiVersion":"v1","kind":"Secret"} {`,
		},
			`a.json: document 1: Service default/web: duplicate field "kind"`,
			`b.json: document 2: unexpected EOF`)
	})
}

func TestLoadFirstFileWins(t *testing.T) {
	service := func(ip string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: " + ip + "}\n"
	}
	got := loadFiles(t, map[string]string{"b.yaml": service("10.96.0.2"), "a.yaml": service("10.96.0.1")},
		`b.yaml: document 1: Service default/web: already defined in a.yaml, document 1; ignored`)
	if ip := got.Services[0].ClusterIPs[0].String(); ip != "10.96.0.1" {
		t.Errorf("cluster IP %s", ip)
	}
	// A headless one wins too.
	got = loadFiles(t, map[string]string{"b.yaml": service("10.96.0.2"), "a.yaml": service("None")},
		`b.yaml: document 1: Service default/web: already defined in a.yaml, document 1; ignored`)
	if len(got.Services) != 0 {
		t.Errorf("services %+v", got.Services)
	}
}

func TestSplitYAML(t *testing.T) {
	type doc struct {
		Number, Line int
		Text         string
	}
	for name, c := range map[string]struct {
		in   string
		want []doc
	}{
		"empty":              {"", nil},
		"one":                {"a: b", []doc{{1, 0, "a: b"}}},
		"header":             {"# x\n\n---\na: b\n", []doc{{1, 2, "\na: b\n"}}},
		"two":                {"a: b\n---\nc: d\n", []doc{{1, 0, "a: b\n"}, {2, 1, "\nc: d\n"}}},
		"blank ones counted": {"---\n---\n# x\n---\na: b\n", []doc{{3, 3, "\na: b\n"}}},
		"CRLF":               {"a: b\r\n---\r\nc: d\r\n", []doc{{1, 0, "a: b\r\n"}, {2, 1, "\r\nc: d\r\n"}}},
		"on the marker line": {"--- {a: b}\n--- # x\nc: d", []doc{{1, 0, " {a: b}\n"}, {2, 1, " # x\nc: d"}}},
		"end marker":         {"a: b\n...\nc: d\n", []doc{{1, 0, "a: b\n"}, {2, 1, "\nc: d\n"}}},
		"no marker":          {"a: |\n  ---\n----: x\n", []doc{{1, 0, "a: |\n  ---\n----: x\n"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []doc
			for _, d := range splitYAML([]byte(c.in)) {
				got = append(got, doc{d.number, d.line, string(d.data)})
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
