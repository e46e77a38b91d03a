package ipvsnl

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SysctlOptions say what Sysctls looks at.
type SysctlOptions struct {
	Root    string // where the sysctls are; empty for /proc/sys, which shows those of the calling thread's namespace
	Release string // kernel release such as 6.12.0-amd64; empty for the running kernel's
	IPv6    bool   // whether IPv6 is forwarded too

	// NoEstimation keeps the kernel from estimating rates for every virtual and real server all the time. Without it
	// the setting is left as it is.
	NoEstimation bool

	// TrackMaxPerCore and TrackMin say how many connections can be tracked at least: so many for each online processor
	// of the machine, and so many in all. The limit is raised, never lowered. Zero for TrackMaxPerCore: it is left alone.
	TrackMaxPerCore, TrackMin int
	// TrackLiberal lets connection tracking accept TCP segments outside of the window.
	TrackLiberal bool
	// Sys is where the system's devices and modules are; empty for /sys.
	Sys string
}

// SysctlChange is a sysctl that was changed.
type SysctlChange struct{ Path, From, To string }

// String prints the change as in "net/ipv4/ip_forward: 0 -> 1".
func (c SysctlChange) String() string { return fmt.Sprintf("%s: %s -> %s", c.Path, c.From, c.To) }

// Problem is a sysctl that has the wrong value and could not be changed.
type Problem struct {
	Path, Found, Wanted string
	Why                 string // what depends on it
	Cure                string // a command that sets it; empty for sysctl's
	Err                 error
}

// String is one line with what to do.
func (p Problem) String() string {
	what, cure := p.Path, p.Cure
	if cure == "" {
		name := strings.ReplaceAll(p.Path, "/", ".")
		what, cure = "sysctl "+name, fmt.Sprintf("sysctl -w %s=%s", name, p.Wanted)
	}
	return fmt.Sprintf("%s is %s and must be %s (%s): %v; set it with %q", what, p.Found, p.Wanted, p.Why, p.Err, cure)
}

// sysctl is one setting that we depend on.
type sysctl struct {
	path     string
	want     string
	atLeast  bool // a larger number is right too
	required bool // its absence is a problem; without it, the kernel is too old to have it
	why      string
}

func needed(o SysctlOptions) []sysctl {
	list := []sysctl{
		{path: "net/ipv4/vs/conntrack", want: "1", required: true, why: "masquerading of traffic through IPVS needs connection tracking"},
		{path: "net/ipv4/vs/expire_nodest_conn", want: "1", required: true, why: "connections to a removed real server would hang"},
		{path: "net/ipv4/vs/expire_quiescent_template", want: "1", required: true, why: "session affinity would bind clients to a draining real server"},
	}
	// Mode 1 sends a reused client port to a live real server, but before 5.9 it dropped the first SYN of it, which
	// costs a second. 4.1 is where the setting came in.
	if major, minor, ok := parseRelease(o.Release); ok && (major > 4 || major == 4 && minor >= 1) {
		want := "0"
		if major > 5 || major == 5 && minor >= 9 {
			want = "1"
		}
		list = append(list, sysctl{path: "net/ipv4/vs/conn_reuse_mode", want: want, required: true, why: "clients that reuse a port would be delayed or sent to a removed real server"})
	}
	list = append(list, sysctl{path: "net/ipv4/ip_forward", want: "1", required: true, why: "traffic is not forwarded to pods without it"})
	if o.IPv6 {
		list = append(list, sysctl{path: forwarding6, want: "1", required: true, why: "IPv6 traffic is not forwarded to pods without it"})
	}
	if o.NoEstimation { // Linux 6.2 brought the setting
		list = append(list, sysctl{path: "net/ipv4/vs/run_estimation", want: "0", required: true, why: "estimating rates would go on for every virtual and real server"})
	}
	if o.TrackLiberal {
		list = append(list, sysctl{path: trackLiberal, want: "1", required: true, why: "segments outside of the window would not be translated"})
	}
	return list
}

const (
	netfilter    = "net/netfilter/"
	trackLiberal = netfilter + "nf_conntrack_tcp_be_liberal"
	trackMax     = netfilter + "nf_conntrack_max"
	// trackBuckets is relative to /sys: the sysctl of the same meaning can be written only since Linux 4.8.
	trackBuckets = "module/nf_conntrack/parameters/hashsize"
	// trackMost is what kube-proxy sets at most by the number of processors, so that a large machine does not get a table
	// that nobody needs.
	trackMost = 1 << 20
	// perBucket is how many tracked connections share a bucket of the hash table in the end.
	perBucket = 4

	conf6       = "net/ipv6/conf"
	forwarding6 = conf6 + "/all/forwarding"
)

// parseRelease returns the first two numbers of a kernel release.
func parseRelease(release string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(rest[:end])
	return major, minor, err1 == nil && err2 == nil
}

// Sysctls sets what IPVS and forwarding need, and returns what it changed and what it could not. A right value in a
// read-only /proc/sys is fine. It may be called again and again: each change after the first call is drift.
func Sysctls(o SysctlOptions) ([]SysctlChange, []Problem) {
	e := ensurer{root: cmp.Or(o.Root, "/proc/sys")}
	if o.Release == "" {
		var u unix.Utsname
		if unix.Uname(&u) == nil {
			o.Release = unix.ByteSliceToString(u.Release[:])
		}
	}
	for _, s := range needed(o) {
		if s.path == forwarding6 && e.value(s.path) == "0" {
			e.keepRouterAdvertisements()
		}
		e.ensure(s)
	}
	if o.TrackMaxPerCore > 0 {
		e.ensureTrackMax(cmp.Or(o.Sys, "/sys"), o.TrackMaxPerCore, o.TrackMin)
	}
	return e.changes, e.problems
}

// ensureTrackMax raises the number of connections that can be tracked, and that of the hash table's buckets. A network
// namespace other than the machine's own cannot change either; that is a problem only if they are too small.
func (e *ensurer) ensureTrackMax(sys string, perCore, least int) {
	devices := ensurer{root: sys}
	want := perCore * onlineCPUs(devices.value("devices/system/cpu/online"))
	if want > trackMost {
		want = trackMost
	} else {
		want = max(want, least)
	}
	const why = "new connections are dropped when the table of tracked connections is full"
	e.ensure(sysctl{path: trackMax, want: strconv.Itoa(want), atLeast: true, required: true, why: why})
	limit, err := strconv.Atoi(e.value(trackMax))
	if err != nil {
		return
	}
	devices.ensure(sysctl{path: trackBuckets, want: strconv.Itoa(limit / perBucket), atLeast: true, why: "looking up tracked connections is slow"})
	e.changes = append(e.changes, devices.changes...)
	for _, p := range devices.problems {
		p.Cure = fmt.Sprintf("echo %s >%s", p.Wanted, filepath.Join(sys, trackBuckets))
		e.problems = append(e.problems, p)
	}
}

// onlineCPUs counts the processors in a list such as "0-3,8"; at least one.
func onlineCPUs(list string) int {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			continue
		}
		to := from
		if isRange {
			to, _ = strconv.Atoi(last)
		}
		n += max(to-from+1, 1)
	}
	return max(n, 1)
}

// TracksLiberally reports whether connection tracking accepts TCP segments outside of the window, in the calling thread's
// network namespace.
func TracksLiberally() bool {
	e := ensurer{root: "/proc/sys"}
	v := e.value(trackLiberal)
	return v != "" && v != "0"
}

type ensurer struct {
	root     string
	changes  []SysctlChange
	problems []Problem
}

// value returns the value of a sysctl, or "" if it cannot be read.
func (e *ensurer) value(path string) string {
	b, err := os.ReadFile(filepath.Join(e.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (e *ensurer) ensure(s sysctl) {
	file := filepath.Join(e.root, s.path)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !s.required {
		return
	}
	found := strings.TrimSpace(string(b))
	if err != nil {
		found = "unreadable"
	} else if found == s.want || s.atLeast && atLeast(found, s.want) {
		return
	} else if err = write(file, s.want); err == nil {
		e.changes = append(e.changes, SysctlChange{Path: s.path, From: found, To: s.want})
		return
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err // the line names the sysctl already
	}
	e.problems = append(e.problems, Problem{Path: s.path, Found: found, Wanted: s.want, Why: s.why, Err: err})
}

// atLeast compares two numbers; what is not one is too small.
func atLeast(found, want string) bool {
	f, err1 := strconv.Atoi(found)
	w, err2 := strconv.Atoi(want)
	return err1 == nil && err2 == nil && f >= w
}

// write never creates a file: where /proc/sys is replaced by something else, we would believe ourselves.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err //nolint:wrapcheck // a PathError
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// keepRouterAdvertisements lets devices that accept router advertisements go on with it when forwarding begins:
// value 1 then means no, value 2 means nevertheless. A node that got its default route that way would lose it.
// Source: accept_ra in Documentation/networking/ip-sysctl.rst.
func (e *ensurer) keepRouterAdvertisements() {
	devices, err := os.ReadDir(filepath.Join(e.root, conf6))
	if err != nil {
		return // no IPv6: the forwarding sysctl itself becomes the problem
	}
	for _, d := range devices {
		dir := conf6 + "/" + d.Name()
		// Not for "all", which means nothing here, and "default", which would make devices of pods accept them. A
		// device that forwards already accepts none today.
		if slices.Contains([]string{"all", "default", "lo"}, d.Name()) || e.value(dir+"/accept_ra") != "1" || e.value(dir+"/forwarding") == "1" {
			continue
		}
		e.ensure(sysctl{path: dir + "/accept_ra", want: "2", why: "the device would lose what router advertisements gave it"})
	}
}
