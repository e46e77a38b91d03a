package ipvsnl

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sysctlTree writes a /proc/sys of the given values.
func sysctlTree(t *testing.T, values map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, value := range values {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func kernelDefaults() map[string]string {
	return map[string]string{
		"net/ipv4/vs/conntrack":                 "0",
		"net/ipv4/vs/conn_reuse_mode":           "1",
		"net/ipv4/vs/expire_nodest_conn":        "0",
		"net/ipv4/vs/expire_quiescent_template": "0",
		"net/ipv4/ip_forward":                   "0",
		"net/ipv6/conf/all/forwarding":          "0",
		"net/ipv6/conf/all/accept_ra":           "1",
		"net/ipv6/conf/default/accept_ra":       "1",
		"net/ipv6/conf/lo/accept_ra":            "1",
		"net/ipv6/conf/eth0/accept_ra":          "1",
		"net/ipv6/conf/eth0/forwarding":         "0",
		"net/ipv6/conf/eth1/accept_ra":          "0",
		"net/ipv6/conf/eth1/forwarding":         "0",
		"net/ipv6/conf/eth2/accept_ra":          "1",
		"net/ipv6/conf/eth2/forwarding":         "1",
	}
}

func TestSysctlsSet(t *testing.T) {
	root := sysctlTree(t, kernelDefaults())
	o := SysctlOptions{Root: root, Release: "6.12.0-amd64", IPv6: true}
	changed, problems := Sysctls(o)
	want := []string{
		"net/ipv4/vs/conntrack: 0 -> 1", "net/ipv4/vs/expire_nodest_conn: 0 -> 1", "net/ipv4/vs/expire_quiescent_template: 0 -> 1",
		"net/ipv4/ip_forward: 0 -> 1",
		"net/ipv6/conf/eth0/accept_ra: 1 -> 2", // before the next one
		"net/ipv6/conf/all/forwarding: 0 -> 1",
	}
	got := []string{}
	for _, c := range changed {
		got = append(got, c.String())
	}
	if !slices.Equal(got, want) || problems != nil {
		t.Errorf("changed %q\nwant    %q\nproblems %v", got, want, problems)
	}
	for path, value := range map[string]string{"net/ipv4/vs/conntrack": "1", "net/ipv6/conf/default/accept_ra": "1", "net/ipv6/conf/eth2/accept_ra": "1"} {
		if b, err := os.ReadFile(filepath.Join(root, path)); string(b) != value && string(b) != value+"\n" || err != nil {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if changed, problems = Sysctls(o); changed != nil || problems != nil {
		t.Errorf("once more: %v, %v", changed, problems)
	}
}

// TestNoEstimation: the setting is written only when asked to, and is a problem where the kernel lacks it.
func TestNoEstimation(t *testing.T) {
	const path = "net/ipv4/vs/run_estimation"
	values := kernelDefaults()
	values[path] = "1"
	root := sysctlTree(t, values)
	for _, off := range []bool{false, true} {
		changed, problems := Sysctls(SysctlOptions{Root: root, Release: "6.12.0", NoEstimation: off})
		wrote := slices.ContainsFunc(changed, func(c SysctlChange) bool { return c.Path == path && c.To == "0" })
		if wrote != off || len(problems) > 0 {
			t.Errorf("off %v: changed %v, problems %v", off, changed, problems)
		}
	}
	_, problems := Sysctls(SysctlOptions{Root: sysctlTree(t, kernelDefaults()), Release: "6.1.0", NoEstimation: true})
	if len(problems) != 1 || problems[0].Path != path {
		t.Errorf("a kernel without the setting: %v", problems)
	}
}

func TestConnReuseModeByRelease(t *testing.T) {
	for release, want := range map[string]string{
		"3.10.0-1160.el7.x86_64": "", "4.0.9": "", "4.1": "0", "4.19.0-26": "0", "5.8.18": "0",
		"5.9.0": "1", "5.15.0-91-generic": "1", "6.12.0+": "1", "nonsense": "",
	} {
		got := ""
		for _, s := range needed(SysctlOptions{Release: release}) {
			if strings.HasSuffix(s.path, "conn_reuse_mode") {
				got = s.want
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", release, got, want)
		}
	}
}

// Without IPv6, its sysctls are neither read nor set.
func TestSysctlsIPv4Only(t *testing.T) {
	values := kernelDefaults()
	for path := range values {
		if strings.HasPrefix(path, "net/ipv6") {
			delete(values, path)
		}
	}
	changed, problems := Sysctls(SysctlOptions{Root: sysctlTree(t, values), Release: "6.12.0"})
	if len(changed) != 4 || problems != nil {
		t.Errorf("%v, %v", changed, problems)
	}
}

// A value that cannot be set, or does not exist, becomes one line with what to do; a right one that could not be set
// is fine. /dev/full stands for a file that reads but cannot be written, even by root.
func TestSysctlProblems(t *testing.T) {
	values := kernelDefaults()
	for _, path := range []string{"net/ipv4/vs/conntrack", "net/ipv4/ip_forward"} {
		delete(values, path)
	}
	root := sysctlTree(t, values)
	e := ensurer{root: root}
	e.ensure(sysctl{path: "net/ipv4/vs/conntrack", want: "1", required: true, why: "because"})
	e.ensure(sysctl{path: "net/ipv4/vs/conntrack", want: "1", why: "because"})
	if len(e.problems) != 1 || e.changes != nil {
		t.Fatalf("%v, %v", e.changes, e.problems)
	}
	want := `sysctl net.ipv4.vs.conntrack is unreadable and must be 1 (because): no such file or directory; set it with "sysctl -w net.ipv4.vs.conntrack=1"`
	if got := e.problems[0].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(root, "net/ipv4/vs/conntrack")); err == nil {
		t.Error("the sysctl was created")
	}
	if err := write("/dev/full", "1"); err == nil {
		t.Error("a failed write goes unnoticed")
	}
	if s := fmt.Sprint(SysctlChange{"a/b", "0", "1"}); s != "a/b: 0 -> 1" {
		t.Error(s)
	}
}
