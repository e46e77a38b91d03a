package testbed

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

var errExited = errors.New("testbed: function ended its goroutine")

// onThread runs fn on an OS thread of its own that may change its network namespace, and waits for it. A separate
// goroutine, because the caller must never go on in a foreign namespace when the way back fails.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errExited // what is left to say if fn calls runtime.Goexit, as t.Fatal does
		defer func() { done <- err }()
		runtime.LockOSThread()
		home, herr := netns.Get()
		if herr != nil {
			err = fmt.Errorf("own network namespace: %w", herr)
			return
		}
		defer home.Close()
		err = fn()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		} // else: a goroutine that ends locked takes its thread with it
	}()
	return <-done
}
