package ipvsnl

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	libipvs "github.com/moby/ipvs"
)

// Timeouts are how long idle connections are kept, in whole seconds. As a wish, zero is none.
type Timeouts struct {
	// TCP, TCPFin and UDP are those of IPVS: of established TCP connections, of those of which one side has closed, and
	// of UDP flows. Source: IPVS_CMD_SET_CONFIG in linux/ip_vs.h.
	TCP, TCPFin, UDP time.Duration
	// TrackTCP, TrackCloseWait, TrackUDP and TrackUDPStream are those of connection tracking: of established TCP
	// connections, of those of which the peer has closed, and of UDP flows without and with answers. Source:
	// Documentation/networking/nf_conntrack-sysctl.rst.
	TrackTCP, TrackCloseWait, TrackUDP, TrackUDPStream time.Duration
}

// reconcile turns wishes into what both tables get, given what they have. A connection through IPVS needs its entry in
// both, so the longer wish counts for both. Without one TCP follows connection tracking, where IPVS's own default
// would end an idle connection after 15 minutes; and UDP is left alone in both: what connection tracking has for
// it is for all of the node's DNS queries too.
func (t Timeouts) reconcile(have Timeouts) Timeouts {
	want := Timeouts{
		TCPFin:         cmp.Or(t.TCPFin, have.TCPFin),
		UDP:            max(cmp.Or(t.UDP, have.UDP), t.TrackUDP, t.TrackUDPStream),
		TrackTCP:       max(cmp.Or(t.TrackTCP, have.TrackTCP), t.TCP),
		TrackCloseWait: cmp.Or(t.TrackCloseWait, have.TrackCloseWait),
		TrackUDP:       max(cmp.Or(t.TrackUDP, have.TrackUDP), t.UDP),
		TrackUDPStream: max(cmp.Or(t.TrackUDPStream, have.TrackUDPStream), t.UDP),
	}
	want.TCP = cmp.Or(t.TCP, want.TrackTCP)
	return want
}

// The sysctls of connection tracking's timeouts, in seconds.
const (
	trackTCP       = netfilter + "nf_conntrack_tcp_timeout_established"
	trackCloseWait = netfilter + "nf_conntrack_tcp_timeout_close_wait"
	trackUDP       = netfilter + "nf_conntrack_udp_timeout"
	trackUDPStream = netfilter + "nf_conntrack_udp_timeout_stream"
)

// EnsureTimeouts makes the timeouts of IPVS and of connection tracking what is wished for. Like Sysctls it returns what
// it changed and what it could not, and may be called again and again. The root is that of SysctlOptions; the sysctls
// are those of the calling thread's namespace.
func (t *Table) EnsureTimeouts(ctx context.Context, wish Timeouts, root string) ([]SysctlChange, []Problem) {
	e := ensurer{root: cmp.Or(root, "/proc/sys")}
	ipvs, err := t.timeouts(ctx)
	have := Timeouts{
		TCP: ipvs.TimeoutTCP, TCPFin: ipvs.TimeoutTCPFin, UDP: ipvs.TimeoutUDP,
		TrackTCP: e.seconds(trackTCP), TrackCloseWait: e.seconds(trackCloseWait),
		TrackUDP: e.seconds(trackUDP), TrackUDPStream: e.seconds(trackUDPStream),
	}
	want := wish.reconcile(have)
	e.ensureSeconds(trackTCP, want.TrackTCP, "established connections would be forgotten while IPVS still knows them")
	e.ensureSeconds(trackCloseWait, want.TrackCloseWait, "half-closed connections would be forgotten too soon or too late")
	e.ensureSeconds(trackUDP, want.TrackUDP, "UDP flows would be forgotten while IPVS still knows them")
	e.ensureSeconds(trackUDPStream, want.TrackUDPStream, "UDP flows would be forgotten while IPVS still knows them")
	if err == nil && (have.TCP != want.TCP || have.TCPFin != want.TCPFin || have.UDP != want.UDP) {
		err = t.setTimeouts(ctx, libipvs.Config{TimeoutTCP: want.TCP, TimeoutTCPFin: want.TCPFin, TimeoutUDP: want.UDP})
		if err == nil {
			e.changes = append(e.changes, SysctlChange{Path: ipvsTimeouts, From: have.ipvs(), To: want.ipvs()})
		}
	}
	if err != nil {
		e.problems = append(e.problems, Problem{
			Path: ipvsTimeouts, Found: have.ipvs(), Wanted: want.ipvs(), Why: "idle connections would end early", Err: err,
			Cure: "ipvsadm --set " + want.ipvs(),
		})
	}
	return e.changes, e.problems
}

// ipvsTimeouts stands for a path where changes and problems are named.
const ipvsTimeouts = "IPVS timeouts"

// ipvs prints the timeouts of IPVS as ipvsadm --set takes them.
func (t Timeouts) ipvs() string {
	return fmt.Sprintf("%d %d %d", int(t.TCP.Seconds()), int(t.TCPFin.Seconds()), int(t.UDP.Seconds()))
}

func (t *Table) timeouts(ctx context.Context) (libipvs.Config, error) {
	if err := ctx.Err(); err != nil {
		return libipvs.Config{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.vs.GetConfig()
	if err != nil {
		return libipvs.Config{}, fmt.Errorf("read: %w", err)
	}
	return *c, nil
}

func (t *Table) setTimeouts(ctx context.Context, c libipvs.Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.vs.SetConfig(&c) //nolint:wrapcheck // the problem names it
}

// seconds returns the value of a sysctl as a time; zero if there is none.
func (e *ensurer) seconds(path string) time.Duration {
	n, err := strconv.Atoi(e.value(path))
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

func (e *ensurer) ensureSeconds(path string, want time.Duration, why string) {
	if want > 0 {
		e.ensure(sysctl{path: path, want: strconv.Itoa(int(want.Seconds())), required: true, why: why})
	}
}
