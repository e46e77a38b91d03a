package controlplane

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNetns calls f on one thread, which is in the named network namespace for that time. A process that f starts
// and a socket that it opens stay there. With the name "" the thread stays where it is.
func inNetns(name string, f func() error) (err error) {
	runtime.LockOSThread()
	if name == "" {
		defer runtime.UnlockOSThread()
		return f()
	}
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("get network namespace: %w", err)
	}
	defer home.Close()
	defer func() {
		if back := netns.Set(home); back != nil {
			// The thread stays locked: other goroutines must not run on it, and it ends with this one.
			err = errors.Join(err, fmt.Errorf("leave network namespace %s: %w", name, back))
			return
		}
		runtime.UnlockOSThread()
	}()
	there, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return f()
}

// setLoopbackUp brings up the loopback of the named network namespace: the API server talks to itself, and what
// a host sends to an address of its own goes over the loopback too. The caller's namespace is left as it is.
func setLoopbackUp(name string) error {
	if name == "" {
		return nil
	}
	return inNetns(name, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find loopback of network namespace %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("bring up loopback of network namespace %s: %w", name, err)
		}
		return nil
	})
}
