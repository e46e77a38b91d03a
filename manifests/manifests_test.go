// Package manifests checks the YAML here against the code: flags that exist, rights that are used.
package manifests

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/kube-hop/kube-hop/config"
)

func document(t *testing.T, file, kind string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
		if bytes.Contains(doc, []byte("\nkind: "+kind+"\n")) {
			if err := yaml.UnmarshalStrict(doc, into); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			return
		}
	}
	t.Fatalf("%s has no %s", file, kind)
}

func TestDaemonSetFlagsAreValid(t *testing.T) {
	var ds appsv1.DaemonSet
	document(t, "daemonset.yaml", "DaemonSet", &ds)
	args := ds.Spec.Template.Spec.Containers[0].Args
	if len(args) == 0 || args[0] != "run" {
		t.Fatalf("arguments are %q, want the command run first", args)
	}
	var flags config.Flags
	fs := pflag.NewFlagSet("kube-hop", pflag.ContinueOnError)
	flags.Add(fs)
	if err := fs.Parse(args[1:]); err != nil {
		t.Fatal(err)
	}
	if _, err := flags.RunConfig(); err != nil {
		t.Error(err)
	}
}

func TestRightsAreThoseOfTheInformers(t *testing.T) {
	var role rbacv1.ClusterRole
	document(t, "rbac.yaml", "ClusterRole", &role)
	got := map[string]string{}
	for _, r := range role.Rules {
		verbs := slices.Clone(r.Verbs)
		slices.Sort(verbs)
		got[strings.Join(r.APIGroups, ",")+"/"+strings.Join(r.Resources, ",")] = strings.Join(verbs, ",")
	}
	want := map[string]string{
		"/services": "list,watch", "/nodes": "get,list,watch",
		"discovery.k8s.io/endpointslices": "list,watch", "networking.k8s.io/servicecidrs": "list,watch",
		"events.k8s.io/events": "create,patch,update", // client-go's recorder
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("verbs on %s are %q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("rules %v, want only %v: a right that is not used is not asked for", got, want)
	}
}
