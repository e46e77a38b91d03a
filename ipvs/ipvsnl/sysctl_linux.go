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
}

// SysctlChange is a sysctl that was changed.
type SysctlChange struct{ Path, From, To string }

// String prints the change as in "net/ipv4/ip_forward: 0 -> 1".
func (c SysctlChange) String() string { return fmt.Sprintf("%s: %s -> %s", c.Path, c.From, c.To) }

// Problem is a sysctl that has the wrong value and could not be changed.
type Problem struct {
	Path, Found, Wanted string
	Why                 string // what depends on it
	Err                 error
}

// String is one line with what to do.
func (p Problem) String() string {
	name := strings.ReplaceAll(p.Path, "/", ".")
	return fmt.Sprintf(`sysctl %s is %s and must be %s (%s): %v; set it with "sysctl -w %s=%s"`,
		name, p.Found, p.Wanted, p.Why, p.Err, name, p.Wanted)
}

// sysctl is one setting that we depend on.
type sysctl struct {
	path     string
	want     string
	required bool // its absence is a problem; without it, the kernel is too old to have it
	why      string
}

func needed(o SysctlOptions) []sysctl {
	list := []sysctl{
		{"net/ipv4/vs/conntrack", "1", true, "masquerading of traffic through IPVS needs connection tracking"},
		{"net/ipv4/vs/expire_nodest_conn", "1", true, "connections to a removed real server would hang"},
		{"net/ipv4/vs/expire_quiescent_template", "1", true, "session affinity would bind clients to a draining real server"},
	}
	// Mode 1 sends a reused client port to a live real server, but before 5.9 it dropped the first SYN of it, which
	// costs a second. 4.1 is where the setting came in.
	if major, minor, ok := parseRelease(o.Release); ok && (major > 4 || major == 4 && minor >= 1) {
		want := "0"
		if major > 5 || major == 5 && minor >= 9 {
			want = "1"
		}
		list = append(list, sysctl{"net/ipv4/vs/conn_reuse_mode", want, true, "clients that reuse a port would be delayed or sent to a removed real server"})
	}
	list = append(list, sysctl{"net/ipv4/ip_forward", "1", true, "traffic is not forwarded to pods without it"})
	if o.IPv6 {
		list = append(list, sysctl{forwarding6, "1", true, "IPv6 traffic is not forwarded to pods without it"})
	}
	return list
}

const (
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
	return e.changes, e.problems
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
	} else if found == s.want {
		return
	} else if err = write(file, s.want); err == nil {
		e.changes = append(e.changes, SysctlChange{Path: s.path, From: found, To: s.want})
		return
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the line names the sysctl already
	}
	e.problems = append(e.problems, Problem{Path: s.path, Found: found, Wanted: s.want, Why: s.why, Err: err})
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
		e.ensure(sysctl{dir + "/accept_ra", "2", false, "the device would lose what router advertisements gave it"})
	}
}
