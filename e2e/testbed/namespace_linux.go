package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netns"
)

// namespaceDir is where iproute2 looks for named namespaces. Source: ip-netns(8).
const namespaceDir = "/run/netns"

// newNamespace makes a network namespace that `ip netns exec NAME` knows too.
func newNamespace(name string) (netns.NsHandle, error) {
	handle := netns.None()
	err := onThread(func() (err error) {
		handle, err = netns.NewNamed(name)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			// The file is made before it is mounted on; without the mount it is litter.
			_ = os.Remove(filepath.Join(namespaceDir, name))
		}
		return err
	})
	if err != nil {
		return netns.None(), fmt.Errorf("namespace %s: %w", name, err)
	}
	return handle, nil
}

// sysctl is one setting below /proc/sys/net, such as {"ipv4/ip_forward", "1"}.
type sysctl struct{ path, value string }

// setSysctls writes the settings of the thread's namespace: /proc/sys/net shows that of whoever opens it.
func setSysctls(settings []sysctl) error {
	for _, s := range settings {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", s.path), []byte(s.value), 0); err != nil {
			return fmt.Errorf("sysctl net.%s: %w", strings.ReplaceAll(s.path, "/", "."), err)
		}
	}
	return nil
}

// hostSysctls make addresses usable at once and routes stay as they were built.
func hostSysctls() []sysctl {
	return []sysctl{
		// A new namespace begins with the IPv4 settings of the machine's own, which may well forward.
		{"ipv4/ip_forward", "0"},
		{"ipv6/conf/all/forwarding", "0"},
		{"ipv6/conf/all/disable_ipv6", "0"},
		{"ipv6/conf/default/disable_ipv6", "0"},
		// Duplicate address detection takes a second, in which the address is not used. Both must be off.
		{"ipv6/conf/all/accept_dad", "0"},
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		// A node sees packets leave by the interface they came by, and says so; nobody shall learn routes from it.
		{"ipv4/conf/all/accept_redirects", "0"},
		{"ipv4/conf/default/accept_redirects", "0"},
		{"ipv6/conf/all/accept_redirects", "0"},
		{"ipv6/conf/default/accept_redirects", "0"},
	}
}

// nodeSysctls are what a network plugin sets on a node. Bridged packets go through iptables, so that the answer of
// a pod to another pod of its node is translated back.
func nodeSysctls() []sysctl {
	return []sysctl{
		{"ipv4/ip_forward", "1"},
		{"ipv6/conf/all/forwarding", "1"},
		{"bridge/bridge-nf-call-iptables", "1"},
		{"bridge/bridge-nf-call-ip6tables", "1"},
	}
}

// wireSysctls keep the wire a plain cable.
func wireSysctls() []sysctl {
	return []sysctl{
		{"bridge/bridge-nf-call-iptables", "0"},
		{"bridge/bridge-nf-call-ip6tables", "0"},
	}
}
