// Package events is how the daemon tells people, beside its log, what is wrong with a Service or with the node: as
// Kubernetes events, which kubectl describe shows on the object concerned. Here are the values and the contract;
// package eventsapi writes to an API server, eventstest remembers for tests.
package events

import "github.com/kube-hop/kube-hop/lb"

// Reason is a short machine-readable word in CamelCase, the field reason of events.k8s.io/v1.
type Reason string

// The reasons. Those of kube-proxy keep its words.
const (
	// Starting is reported at each start (kube-proxy's reason and action).
	Starting Reason = "Starting"
	// HealthCheckFailed says that a Service's healthCheckNodePort cannot be opened (kube-proxy's reason and action).
	HealthCheckFailed Reason = "FailedToStartServiceHealthcheck"
	// FrontendConflict says that another Service has an address and port that this one claims too.
	FrontendConflict Reason = "FrontendConflict"
	// UnusableValue says that a field or annotation of a Service is ignored.
	UnusableValue Reason = "UnusableValue"
	// SchedulerUnavailable says that the kernel lacks the scheduler that a Service asks for.
	SchedulerUnavailable Reason = "SchedulerUnavailable"
	// NoWeights says that the weights that a Service's annotation gives are all 0, and hence not followed.
	NoWeights Reason = "NoWeights"
	// NotProgrammed says that the kernel refuses something of a Service; it is being retried.
	NotProgrammed Reason = "NotProgrammed"
	// ForeignVirtualServer says that somebody else's virtual server has an address and port of a Service.
	ForeignVirtualServer Reason = "ForeignVirtualServer"
	// KernelSetting says that a setting of the node's kernel is wrong and kube-hop does not or cannot change it.
	KernelSetting Reason = "KernelSetting"
)

// Action returns what was being done, the field action of events.k8s.io/v1.
func (r Reason) Action() string {
	switch r {
	case Starting:
		return "StartKubeProxy"
	case HealthCheckFailed:
		return "Listen"
	default:
		return "Program"
	}
}

// Event is one thing to tell.
type Event struct {
	// Service is the one concerned; the zero Name stands for this node.
	Service lb.Name
	// UID is the Service's; empty if unknown.
	UID string
	// Part is what of the Service or the node is concerned: the path of a field, a frontend, a scheduler, a setting of the
	// kernel; empty for all of it. Two events that differ in it are two for people. Of those that do not, only the first one's message is
	// kept, and they are counted.
	Part string
	// Reason and Message say what; the API keeps the first 1024 bytes of a message.
	Reason  Reason
	Message string
}

// Normal reports whether the event is not a warning.
func (e Event) Normal() bool { return e.Reason == Starting }

// String is one line.
func (e Event) String() string {
	about := "node"
	if e.Service != (lb.Name{}) {
		about = "Service " + e.Service.String()
	}
	return about + " " + string(e.Reason) + ": " + e.Message
}

// Sink takes events. Report never blocks, may be called from several goroutines, and may drop what comes too fast;
// whoever reports writes a log line too, so nothing is lost.
type Sink interface {
	Report(Event)
}

// Discard takes events and forgets them: where there is no API server, the log has to do.
type Discard struct{}

// Report implements Sink.
func (Discard) Report(Event) {}
