package eventsapi

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/lb"
)

// with runs a test on a sink whose writes go to a fake API server, and ends the sink.
func with(t *testing.T, test func(*Sink, *fake.Clientset)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		s := New(client, "n1")
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		test(s, client)
		cancel()
		s.Close()
		synctest.Wait()
	})
}

func written(t *testing.T, client *fake.Clientset) []eventsv1.Event {
	t.Helper()
	synctest.Wait()
	list, err := client.EventsV1().Events(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestEventsAreWritten(t *testing.T) {
	with(t, func(s *Sink, client *fake.Clientset) {
		s.Report(events.Event{Service: lb.Name{Namespace: "shop", Name: "web"}, UID: "u1", Reason: events.HealthCheckFailed, Message: "100% taken"})
		s.Report(events.Event{Reason: events.Starting, Message: "here"})
		byReason := map[string]eventsv1.Event{}
		for _, e := range written(t, client) {
			byReason[e.Reason] = e
		}
		e := byReason["FailedToStartServiceHealthcheck"]
		if e.Regarding.Kind != "Service" || e.Regarding.Namespace != "shop" || e.Regarding.Name != "web" || e.Regarding.UID != "u1" ||
			e.Namespace != "shop" || e.Action != "Listen" || e.Type != "Warning" || e.ReportingController != "kube-proxy" || e.Note != "100% taken" {
			t.Errorf("event on a Service is %+v", e)
		}
		e = byReason["Starting"]
		if e.Regarding.Kind != "Node" || e.Regarding.Name != "n1" || e.Regarding.UID != "n1" || e.Namespace != "default" ||
			e.Action != "StartKubeProxy" || e.Type != "Normal" {
			t.Errorf("event on the node is %+v", e)
		}
	})
}

// A repeated event becomes a series: one object, whatever happens how often.
func TestRepetitionIsOneObject(t *testing.T) {
	with(t, func(s *Sink, client *fake.Clientset) {
		for range 10 {
			s.Report(events.Event{Service: lb.Name{Namespace: "shop", Name: "web"}, Reason: events.NotProgrammed, Message: "no"})
			synctest.Wait()
		}
		if n := len(written(t, client)); n != 1 {
			t.Errorf("%d objects for ten equal events, want 1", n)
		}
	})
}

// What concerns different parts of an object are different events, each with its own note, however close together.
func TestEachPartHasItsEvent(t *testing.T) {
	with(t, func(s *Sink, client *fake.Clientset) {
		notes := map[string]string{"net/bridge/bridge-nf-call-iptables": "of IPv4", "net/bridge/bridge-nf-call-ip6tables": "of IPv6"}
		for range 2 {
			for part, note := range notes {
				s.Report(events.Event{Part: part, Reason: events.KernelSetting, Message: note})
				time.Sleep(time.Nanosecond) // of the clock that stands still: client-go names an event by its time
			}
		}
		list := written(t, client)
		for _, e := range list {
			if e.Note != notes[e.Regarding.FieldPath] || e.Regarding.Name != "n1" {
				t.Errorf("event about %+v says %q", e.Regarding, e.Note)
			}
		}
		if len(list) != len(notes) {
			t.Errorf("%d events, want %d", len(list), len(notes))
		}
	})
}

func TestRateIsLimited(t *testing.T) {
	with(t, func(s *Sink, client *fake.Clientset) {
		for i := range 10 * burst {
			s.Report(events.Event{Service: lb.Name{Namespace: "shop", Name: strings.Repeat("x", i+1)}, Reason: events.NotProgrammed})
		}
		if n := len(written(t, client)); n != burst {
			t.Errorf("%d of %d events were written at once, want %d", n, 10*burst, burst)
		}
		time.Sleep(3 * time.Second)
		for i := range 10 {
			s.Report(events.Event{Service: lb.Name{Namespace: "later", Name: strings.Repeat("x", i+1)}, Reason: events.NotProgrammed})
		}
		if n := len(written(t, client)); n < burst+2 || n > burst+4 {
			t.Errorf("%d events after three more seconds, want about %d", n, burst+3)
		}
	})
}

// An API server that does not answer holds nobody up.
func TestReportDoesNotBlock(t *testing.T) {
	with(t, func(s *Sink, client *fake.Clientset) {
		client.PrependReactor("create", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("no route to host")
		})
		begin := time.Now()
		for range 5000 {
			s.Report(events.Event{Reason: events.KernelSetting, Message: "x"})
		}
		if took := time.Since(begin); took != 0 { // time stands still unless somebody waits
			t.Errorf("5000 reports took %s", took)
		}
	})
}

func TestNoteIsCutBetweenCharacters(t *testing.T) {
	for in, want := range map[string]int{"short": 5, strings.Repeat("x", 2000): 1024, "x" + strings.Repeat("ä", 1000): 1023} {
		if got := len(note(in)); got != want {
			t.Errorf("note of %d bytes has %d, want %d", len(in), got, want)
		}
	}
}
