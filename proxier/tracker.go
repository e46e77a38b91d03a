package proxier

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kube-hop/kube-hop/lb"
)

// Tracker is the [lb.Sink] of the proxier. It holds the latest state of every object and remembers what changed
// since the last Take. It is safe for concurrent use.
type Tracker struct {
	now   func() time.Time
	start time.Time
	wake  chan struct{}

	mu      sync.Mutex
	objects map[lb.Name]*Object
	sliceOf map[lb.Name]lb.Name // slice name to the Service that it belongs to
	node    lb.Node
	cidrs   []netip.Prefix
	local   []netip.Addr
	onLink  []netip.Prefix
	// labels are never changed in place: a batch may hold them. byLabel are the Services whose weights look at them.
	labels   map[string]map[string]string
	byLabel  map[lb.Name]struct{}
	synced   bool
	pending  Changes
	dirty    map[lb.Name]struct{}
	allDirty bool
	boundMay bool // somebody may have taken bound prefixes away
}

// Object is one Service with its slices, sorted by name. Either may be missing.
type Object struct {
	Name    lb.Name
	Exists  bool
	Service lb.Service
	Slices  []lb.EndpointSlice
}

// Changes counts what changed.
type Changes struct {
	Services, Endpoints int
	// Triggers are when the changes of EndpointSlices happened, as far as that is known and not before the start.
	Triggers []Trigger
	// Since is when the oldest of the changes arrived; zero when there is none.
	Since time.Time
}

// Trigger is when a change happened that an EndpointSlice follows.
type Trigger struct {
	Family lb.Family
	At     time.Time
}

// Batch is what a Take returns.
type Batch struct {
	Changes
	// Changed are the objects that changed, or all when Facts changed. Their slices are not changed later.
	Changed []Object
	// BoundMayDiffer is set when somebody may have taken away what makes VIPs local.
	BoundMayDiffer bool
	// FactsChanged is set when something changed on which every Service depends.
	FactsChanged bool
	Node         lb.Node
	ServiceCIDRs []netip.Prefix
	Local        []netip.Addr
	OnLink       []netip.Prefix
	NodeLabels   map[string]map[string]string
}

// NewTracker returns an empty tracker. The clock gives Changes.Since.
func NewTracker(now func() time.Time) *Tracker {
	return &Tracker{
		now: now, start: now(), wake: make(chan struct{}, 1),
		objects: map[lb.Name]*Object{}, sliceOf: map[lb.Name]lb.Name{}, dirty: map[lb.Name]struct{}{},
		byLabel:  map[lb.Name]struct{}{},
		allDirty: true, // the first Take hands over the facts
	}
}

var _ lb.Sink = (*Tracker)(nil)

// SetService implements lb.Sink.
func (t *Tracker) SetService(s lb.Service) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.object(s.Name)
	if o.Exists && o.Service.Equal(s) {
		return
	}
	o.Exists, o.Service = true, s
	t.noteByLabel(s.Name, s.WeighsByNode())
	t.pending.Services++
	t.touch(s.Name)
}

// DeleteService implements lb.Sink.
func (t *Tracker) DeleteService(n lb.Name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.objects[n]
	if o == nil || !o.Exists {
		return
	}
	o.Exists, o.Service = false, lb.Service{}
	t.noteByLabel(n, false)
	t.pending.Services++
	t.touch(n)
}

// SetEndpointSlice implements lb.Sink.
func (t *Tracker) SetEndpointSlice(s lb.EndpointSlice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.sliceOf[s.Name]; ok && old != s.Service {
		t.dropSlice(s.Name, old) // the label changed: the slice leaves its old Service
	}
	o := t.object(s.Service)
	i, found := findSlice(o.Slices, s.Name)
	if found && o.Slices[i].Equal(s) {
		return
	}
	next := slices.Clone(o.Slices) // a batch may still hold the old slice
	if found {
		next[i] = s
	} else {
		next = slices.Insert(next, i, s)
	}
	if s.Triggered.After(t.start) && (!found || !s.Triggered.Equal(o.Slices[i].Triggered)) {
		t.pending.Triggers = append(t.pending.Triggers, Trigger{s.Family, s.Triggered})
	}
	o.Slices = next
	t.sliceOf[s.Name] = s.Service
	t.pending.Endpoints++
	t.touch(s.Service)
}

// DeleteEndpointSlice implements lb.Sink.
func (t *Tracker) DeleteEndpointSlice(n lb.Name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if owner, ok := t.sliceOf[n]; ok {
		t.dropSlice(n, owner)
	}
}

// SetNode implements lb.Sink.
func (t *Tracker) SetNode(n lb.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.node.Equal(n) {
		return
	}
	t.node = n
	t.touchAll()
}

func (t *Tracker) noteByLabel(n lb.Name, is bool) {
	if is {
		t.byLabel[n] = struct{}{}
	} else {
		delete(t.byLabel, n)
	}
}

// SetNodeLabels implements lb.Sink. It concerns only the Services whose weights look at labels.
func (t *Tracker) SetNodeLabels(node string, labels map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.labels[node]
	if known == (labels != nil) && maps.Equal(old, labels) {
		return
	}
	next := maps.Clone(t.labels)
	if next == nil {
		next = map[string]map[string]string{}
	}
	if labels == nil {
		delete(next, node)
	} else {
		next[node] = labels
	}
	t.labels = next
	for n := range t.byLabel {
		t.touch(n)
	}
}

// SetServiceCIDRs implements lb.Sink.
func (t *Tracker) SetServiceCIDRs(p []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(t.cidrs, p) {
		return
	}
	t.cidrs = slices.Clone(p)
	t.touchAll()
}

// SetLocalAddresses says which addresses the node's interfaces have, sorted.
func (t *Tracker) SetLocalAddresses(addrs []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(t.local, addrs) {
		return
	}
	t.local = slices.Clone(addrs)
	t.touchAll()
}

// BoundMayDiffer says that somebody may have taken away what makes VIPs local.
func (t *Tracker) BoundMayDiffer() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.boundMay = true
	t.signal()
}

// SetNetworks says in which networks the node's interfaces are, sorted.
func (t *Tracker) SetNetworks(networks []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(t.onLink, networks) {
		return
	}
	t.onLink = slices.Clone(networks)
	t.touchAll()
}

// Synced implements lb.Sink.
func (t *Tracker) Synced() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.synced = true
	t.signal()
}

// IsSynced reports whether the source has handed everything over.
func (t *Tracker) IsSynced() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.synced
}

// Node returns the latest Node.
func (t *Tracker) Node() lb.Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.node
}

// Touch makes the next Take return a Service although nothing of it changed.
func (t *Tracker) Touch(n lb.Name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.objects[n] != nil {
		t.touch(n)
	}
}

// uid returns the UID of a Service, empty if it is not known.
func (t *Tracker) uid(n lb.Name) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := t.objects[n]; o != nil {
		return o.Service.UID
	}
	return ""
}

// Wake returns the channel that gets a value when there is something to Take.
func (t *Tracker) Wake() <-chan struct{} { return t.wake }

// Pending counts what the next Take will return.
func (t *Tracker) Pending() Changes {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pending
}

// Take returns what changed since the last Take.
func (t *Tracker) Take() Batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := Batch{
		Changes: t.pending, FactsChanged: t.allDirty, BoundMayDiffer: t.boundMay,
		Node: t.node, ServiceCIDRs: t.cidrs, Local: t.local, OnLink: t.onLink, NodeLabels: t.labels,
	}
	changed := make([]*Object, 0, len(t.dirty))
	if t.allDirty {
		for _, o := range t.objects {
			changed = append(changed, o)
		}
	} else {
		for n := range t.dirty {
			changed = append(changed, t.objects[n])
		}
	}
	// Pointers are sorted, since objects are large.
	slices.SortFunc(changed, func(a, b *Object) int { return a.Name.Compare(b.Name) })
	b.Changed = make([]Object, 0, len(changed))
	for _, o := range changed {
		b.Changed = append(b.Changed, *o)
		if !o.Exists && len(o.Slices) == 0 {
			delete(t.objects, o.Name)
		}
	}
	t.pending, t.allDirty, t.boundMay = Changes{}, false, false
	clear(t.dirty)
	return b
}

func (t *Tracker) object(n lb.Name) *Object {
	o := t.objects[n]
	if o == nil {
		o = &Object{Name: n}
		t.objects[n] = o
	}
	return o
}

func (t *Tracker) dropSlice(n, owner lb.Name) {
	o := t.objects[owner]
	if i, found := findSlice(o.Slices, n); found {
		o.Slices = slices.Delete(slices.Clone(o.Slices), i, i+1)
	}
	delete(t.sliceOf, n)
	t.pending.Endpoints++
	t.touch(owner)
}

func (t *Tracker) touch(n lb.Name) {
	t.dirty[n] = struct{}{}
	t.queued()
}

func (t *Tracker) touchAll() {
	t.allDirty = true
	t.queued()
}

func (t *Tracker) queued() {
	if t.pending.Since.IsZero() {
		t.pending.Since = t.now()
	}
	t.signal()
}

// signal wakes the loop, once it may start: before the source has synced nothing is to be programmed.
func (t *Tracker) signal() {
	if !t.synced {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func findSlice(s []lb.EndpointSlice, n lb.Name) (int, bool) {
	return slices.BinarySearchFunc(s, n, func(e lb.EndpointSlice, n lb.Name) int { return e.Name.Compare(n) })
}
