package sockhook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

func load(h hook, cookie uint64, ports, flows *ebpf.Map) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "hop_" + h.name, Type: ebpf.CGroupSockAddr, AttachType: h.attach, License: "Apache-2.0",
		Instructions: program(h, cookie, ports, flows),
	})
	if err != nil {
		return nil, fmt.Errorf("load program %s: %w", h.name, err)
	}
	return p, nil
}

// attach puts a hook's program in place. A link that is there is kept, so that nothing passes it unchanged meanwhile;
// with renew its program is replaced. absent is set if there was none.
func (t *Table) attach(h hook, renew bool) (absent bool, err error) {
	pin := filepath.Join(t.dir, h.name)
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err //nolint:wrapcheck // says what failed
	}
	if err == nil {
		defer l.Close()
		attached := isAttached(l)
		if attached && !renew {
			return false, nil
		}
		if !attached {
			if err := l.Unpin(); err != nil {
				return false, err //nolint:wrapcheck // says what failed
			}
			l = nil
		}
	}
	p, err := load(h, t.cookie, t.ports, t.flows)
	if err != nil {
		return false, err
	}
	defer p.Close()
	if l != nil {
		return false, l.Update(p) //nolint:wrapcheck // says what failed
	}
	return true, t.attachNew(h, p, pin)
}

// attachNew makes a link. It is the raw one, because only that can be pinned.
func (t *Table) attachNew(h hook, p *ebpf.Program, pin string) error {
	group, err := os.Open(t.cgroup)
	if err != nil {
		return err //nolint:wrapcheck // a PathError
	}
	defer group.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(group.Fd()), Program: p, Attach: h.attach}) //nolint:gosec // a descriptor
	if err != nil {
		return err //nolint:wrapcheck // says what failed
	}
	defer l.Close()   //nolint:errcheck // pinned by then, or useless
	return l.Pin(pin) //nolint:wrapcheck // says what failed
}

// isAttached reports whether a link still leads anywhere: it can be detached and go on existing.
func isAttached(l link.Link) bool {
	info, err := l.Info()
	return err == nil && info.Cgroup() != nil && info.Cgroup().CgroupId != 0
}

// Remove implements [loopback.Table].
func (t *Table) Remove(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	t.closeMaps()
	var errs []error
	for _, h := range hooks() {
		errs = append(errs, remove(filepath.Join(t.dir, h.name)))
	}
	for _, name := range []string{pinPorts, pinFlows, ""} {
		if err := os.Remove(filepath.Join(t.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("loopback: %w", err))
		}
	}
	_ = os.Remove(filepath.Dir(t.dir)) // stays while another namespace uses it
	return errors.Join(errs...)
}

// remove detaches a link, so that it is gone when this returns, and takes its pin away.
func remove(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer l.Close()
	if err := errors.Join(l.Detach(), l.Unpin()); err != nil {
		return fmt.Errorf("loopback: %s: %w", pin, err)
	}
	return nil
}
