package informers

import (
	"fmt"
	"runtime"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// BenchmarkSliceTransform is what one EndpointSlice event costs before the sink sees it. cacheB/slice is what stays in
// memory for it: cache and sink together, since they share the value.
func BenchmarkSliceTransform(b *testing.B) {
	const n = 10
	r := NewAPI(nil, APIOptions{}).endpointSlices(b.Context(), newRecorder())
	kept := make([]any, 0, b.N+1)
	var before, after runtime.MemStats
	obj := webSlice()
	obj.Endpoints = nil
	for i := range n {
		obj.Endpoints = append(obj.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.244.%d.5", i)}, NodeName: new(fmt.Sprint("node-", i)), Zone: new("zone-a"),
			Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-a"}}},
		})
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	for b.Loop() {
		rec, err := r.transform(obj)
		if err != nil {
			b.Fatal(err)
		}
		kept = append(kept, rec)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(kept)), "cacheB/slice")
}
