package informers

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
)

// TestNodeLabels: the labels of all Nodes are watched while a Service's weights look at them, and not otherwise.
func TestNodeLabels(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	meta := func(name, disk string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"disk": disk}},
		}
	}
	metadata := metadatafake.NewSimpleMetadataClient(scheme, []runtime.Object{meta("n2", "ssd")}...)
	client := fake.NewClientset(webService(), webNode())
	sink := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- NewAPI(client, APIOptions{NodeName: "node-1", Metadata: metadata}).Run(ctx, sink) }()
	sink.await(t, "synced")
	if n := len(metadata.Actions()); n > 0 {
		t.Errorf("%d requests for Nodes that nobody needs", n)
	}
	weigh := func(text string) {
		t.Helper()
		svc := webService()
		svc.Annotations = map[string]string{AnnotationWeights: text}
		if _, err := client.CoreV1().Services("default").Update(ctx, svc, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		sink.await(t, "set default/web")
	}
	weigh("node-label/disk=ssd:2")
	sink.await(t, "labels of n2 map[disk:ssd]")
	nodes := metadata.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).(metadatafake.MetadataClient)
	if _, err := nodes.UpdateFake(meta("n2", "hdd"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	sink.await(t, "labels of n2 map[disk:hdd]")
	if err := nodes.Delete(ctx, "n2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	sink.await(t, "labels of n2 map[]")
	weigh("default:1")
	if _, err := nodes.CreateFake(meta("n3", "ssd"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	weigh("node-label/disk=ssd:3") // and again
	sink.await(t, "labels of n3 map[disk:ssd]")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
