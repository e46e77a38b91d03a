package proxier_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier"
)

// TestWhatChangesNothingIsNotTaken: resyncs and updates of what does not matter cost nothing.
func TestWhatChangesNothingIsNotTaken(t *testing.T) {
	tracker := proxier.NewTracker(time.Now)
	s := service(1)
	slice := lb.EndpointSlice{Name: lb.Name{Namespace: "default", Name: "s1-a"}, Service: s.Name, Family: lb.IPv4}
	set := func() {
		tracker.SetService(s)
		tracker.SetEndpointSlice(slice)
		tracker.SetNode(lb.Node{Name: "n1"})
		tracker.SetServiceCIDRs([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
		tracker.SetLocalAddresses(nodeAddresses)
		tracker.DeleteService(lb.Name{Namespace: "default", Name: "unknown"})
		tracker.DeleteEndpointSlice(lb.Name{Namespace: "default", Name: "unknown"})
	}
	set()
	tracker.Synced()
	<-tracker.Wake()
	if b := tracker.Take(); !b.FactsChanged || len(b.Changed) != 1 || b.Services != 1 || b.Endpoints != 1 {
		t.Fatalf("first batch: %+v", b)
	}
	set()
	select {
	case <-tracker.Wake():
		t.Error("woken, though nothing changed")
	default:
	}
	if b := tracker.Take(); b.FactsChanged || len(b.Changed) != 0 || !b.Since.IsZero() {
		t.Errorf("second batch: %+v, want nothing", b)
	}
}
