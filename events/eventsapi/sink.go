// Package eventsapi writes events to an API server, as events.k8s.io/v1 objects.
package eventsapi

import (
	"context"
	"fmt"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	clientevents "k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/kube-hop/kube-hop/events"
	"github.com/kube-hop/kube-hop/lb"
)

const (
	// controller is the reportingController: kube-proxy's, since what looks for a Service proxy's events looks for it.
	controller = "kube-proxy"
	// perSecond and burst limit what one node may write: a thousand bad Services on a thousand nodes must not load
	// the API server. Repetitions of an event are counted by client-go in one object and cost next to nothing.
	perSecond, burst = 1, 25
	// maxNote is the longest note that the API server admits (events/v1 validation, NoteLengthLimit).
	maxNote = 1024
)

// Sink is an events.Sink that writes to an API server. What is reported before Run is lost.
type Sink struct {
	node        string
	broadcaster clientevents.EventBroadcaster
	recorder    clientevents.EventRecorderLogger
	limit       flowcontrol.RateLimiter
}

var _ events.Sink = (*Sink)(nil)

// New returns a sink that writes with client; node is the name of this node.
func New(client kubernetes.Interface, node string) *Sink {
	b := clientevents.NewBroadcaster(&clientevents.EventSinkImpl{Interface: client.EventsV1()})
	return &Sink{
		node: node, broadcaster: b, recorder: b.NewRecorder(scheme.Scheme, controller),
		limit: flowcontrol.NewTokenBucketRateLimiter(perSecond, burst),
	}
}

// Start begins to write, until ctx ends.
func (s *Sink) Start(ctx context.Context) error {
	if err := s.broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	return nil
}

// Close ends writing. It is called after the ctx of Start has ended and nobody reports any more.
func (s *Sink) Close() { s.broadcaster.Shutdown() }

// Report implements events.Sink: client-go queues the event and drops it when the queue is full.
func (s *Sink) Report(e events.Event) {
	if !s.limit.TryAccept() {
		return
	}
	kind := corev1.EventTypeWarning
	if e.Normal() {
		kind = corev1.EventTypeNormal
	}
	s.recorder.Eventf(s.regarding(e), nil, kind, string(e.Reason), e.Reason.Action(), "%s", note(e.Message))
}

// regarding refers to a Node by its name in the place of the UID, as kubelet and kube-proxy do; kubectl describe node
// looks for that. client-go takes events for repetitions of one if they differ in their notes alone, so the part of the
// object belongs in here.
func (s *Sink) regarding(e events.Event) *corev1.ObjectReference {
	if e.Service == (lb.Name{}) {
		return &corev1.ObjectReference{Kind: "Node", Name: s.node, UID: types.UID(s.node), FieldPath: e.Part}
	}
	return &corev1.ObjectReference{
		Kind: "Service", APIVersion: "v1", Namespace: e.Service.Namespace, Name: e.Service.Name, UID: types.UID(e.UID), FieldPath: e.Part,
	}
}

// note cuts a message to what the API admits, between two characters.
func note(message string) string {
	if len(message) <= maxNote {
		return message
	}
	end := maxNote
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end]
}
