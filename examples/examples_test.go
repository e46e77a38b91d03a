// Package examples_test keeps the example objects valid.
package examples_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// kinds makes the value that an object of a kind is decoded into.
var kinds = map[metav1.TypeMeta]func() metav1.Object{
	{APIVersion: "v1", Kind: "Node"}:                           func() metav1.Object { return &corev1.Node{} },
	{APIVersion: "v1", Kind: "Service"}:                        func() metav1.Object { return &corev1.Service{} },
	{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}: func() metav1.Object { return &discoveryv1.EndpointSlice{} },
	{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"}:  func() metav1.Object { return &networkingv1.ServiceCIDR{} },
}

// A misspelt field is silently ignored by most readers; here it fails.
func TestStrict(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range bytes.Split(text, []byte("\n---\n")) {
			var kind metav1.TypeMeta
			if err := yaml.Unmarshal(doc, &kind); err != nil {
				t.Fatalf("%s, object %d: %v", file, i+1, err)
			}
			newObject := kinds[kind]
			if newObject == nil {
				t.Errorf("%s, object %d: unknown kind %v", file, i+1, kind)
				continue
			}
			obj := newObject()
			if err := yaml.UnmarshalStrict(doc, obj); err != nil || obj.GetName() == "" {
				t.Errorf("%s, object %d %q: %v", file, i+1, obj.GetName(), err)
			}
		}
	}
}
