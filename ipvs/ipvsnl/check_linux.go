package ipvsnl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"

	libipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/ipvs"
)

// ErrNoIPVS says that the kernel has no IPVS, and that loading its module did not help.
var ErrNoIPVS = errors.New(`the kernel has no IPVS (module ip_vs)`)

// CheckOptions say what Check asks the kernel for.
type CheckOptions struct {
	Schedulers []string // such as rr
	IPv6       bool
	Device     string // as in Options
}

// Lack is something that the kernel does not have or let us do.
type Lack struct {
	What  string // "the kernel has no IPVS (module ip_vs)"
	Means string // "IPVS mode cannot work"
	Cure  string // `load it with "modprobe ip_vs"`
	Fatal bool   // nothing can be served without it
}

// String is one line.
func (l Lack) String() string { return l.What + ": " + l.Means + "; " + l.Cure }

// Check tries, in the calling thread's network namespace, what a Table will need, and returns what is lacking. It
// loads modules where it can, and leaves nothing else behind.
func Check(ctx context.Context, o CheckOptions) []Lack {
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_GENERIC)
	if err != nil {
		return []Lack{{
			What:  fmt.Sprintf("netlink sockets cannot be opened (%v)", err),
			Means: "nothing can be programmed", Cure: "allow them to this process", Fatal: true,
		}}
	}
	defer routes.Close()
	var lacks []Lack
	add := func(l *Lack, fatal bool) {
		if l != nil {
			l.Fatal = fatal
			lacks = append(lacks, *l)
		}
	}
	add(checkDevice(ctx, routes, cmp.Or(o.Device, DefaultDevice)), true)
	if err := requireIPVS(ctx, routes); err != nil {
		add(&Lack{What: err.Error(), Means: "virtual servers cannot be programmed", Cure: `load it with "modprobe ip_vs" or install the kernel's extra modules package`}, true)
		return lacks
	}
	vs, err := libipvs.New("")
	if err != nil {
		add(&Lack{What: fmt.Sprintf("IPVS does not answer (%v)", err), Means: "virtual servers cannot be programmed", Cure: "look at the kernel's log"}, true)
		return lacks
	}
	defer vs.Close()
	for _, s := range o.Schedulers {
		add(checkScheduler(ctx, vs, s), true)
	}
	if o.IPv6 && len(o.Schedulers) > 0 {
		add(checkIPv6(ctx, vs, o.Schedulers[0]), false)
	}
	return lacks
}

// requireIPVS fails unless the kernel has IPVS, loaded by us if need be.
func requireIPVS(ctx context.Context, h *netlink.Handle) error {
	_, err := h.GenlFamilyGet("IPVS")
	if errors.Is(err, unix.ENOENT) {
		modprobe(ctx, "ip_vs")
		_, err = h.GenlFamilyGet("IPVS")
	}
	if errors.Is(err, unix.ENOENT) {
		return ErrNoIPVS
	}
	if err != nil {
		return fmt.Errorf("look for IPVS: %w", err)
	}
	return nil
}

// modprobe loads a module. It does not report: images often lack the program, and nodes the module since it is built
// in. The caller looks whether what it needs is there.
func modprobe(ctx context.Context, module string) {
	_ = exec.CommandContext(ctx, "modprobe", "-q", "--", module).Run() //nolint:gosec // names are ours or validated
}

const notPermitted = "run it privileged, or with the capabilities NET_ADMIN and SYS_MODULE"

// checkDevice creates a dummy device, unless ours is there already.
func checkDevice(ctx context.Context, h *netlink.Handle, name string) *Lack {
	if device, err := h.LinkByName(name); err == nil {
		if device.Type() == "dummy" {
			return nil
		}
		return &Lack{What: fmt.Sprintf("the device %s is of type %s, not dummy", name, device.Type()), Means: "Service addresses cannot be made local", Cure: "delete or rename it"}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "kube-ipvs-try"
	trial := &netlink.Dummy{LinkAttrs: attrs}
	err := h.LinkAdd(trial)
	if errors.Is(err, unix.EOPNOTSUPP) {
		modprobe(ctx, "dummy")
		err = h.LinkAdd(trial)
	}
	if err == nil || errors.Is(err, unix.EEXIST) { // one that exists was left by a check that was killed
		err = h.LinkDel(trial)
	}
	if err == nil {
		return nil
	}
	l := &Lack{What: fmt.Sprintf("no dummy device can be created (%v)", err), Means: "Service addresses cannot be made local", Cure: `load its module with "modprobe dummy" or install the kernel's extra modules package`}
	if errors.Is(err, unix.EPERM) {
		l.Cure = notPermitted
	}
	return l
}

// CheckScheduler returns why the kernel cannot be given virtual servers with a scheduler in the calling thread's network
// namespace, nil if it can. It loads the module if need be, and leaves nothing else behind.
func CheckScheduler(ctx context.Context, name string) error {
	vs, err := libipvs.New("")
	if err != nil {
		return fmt.Errorf("scheduler %s: %w", name, err)
	}
	defer vs.Close()
	if l := checkScheduler(ctx, vs, name); l != nil {
		return errors.New(l.What + "; " + l.Cure)
	}
	return nil
}

// checkScheduler looks for the scheduler in use, or tries it.
func checkScheduler(ctx context.Context, vs *libipvs.Handle, name string) *Lack {
	services, err := vs.GetServices()
	for _, s := range services {
		if s.SchedName == name {
			return nil
		}
	}
	if err == nil {
		// TEST-NET-2, RFC 5737: no Service has such an address.
		err = tryVirtual(vs, netip.AddrFrom4([4]byte{198, 51, 100, 0}), name)
	}
	if errors.Is(err, unix.ENOENT) {
		modprobe(ctx, "ip_vs_"+name)
		err = tryVirtual(vs, netip.AddrFrom4([4]byte{198, 51, 100, 0}), name)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return &Lack{What: fmt.Sprintf("IPVS may not be changed (%v)", err), Means: "virtual servers cannot be programmed", Cure: notPermitted}
	case errors.Is(err, unix.ENOENT):
		return &Lack{What: fmt.Sprintf("the kernel has no IPVS scheduler %s (module ip_vs_%s)", name, name), Means: "Services that use it cannot be programmed", Cure: fmt.Sprintf(`load it with "modprobe ip_vs_%s" or choose another scheduler`, name)}
	}
	return &Lack{What: fmt.Sprintf("the IPVS scheduler %s cannot be used (%v)", name, err), Means: "Services that use it cannot be programmed", Cure: "look at the kernel's log or choose another scheduler"}
}

func checkIPv6(ctx context.Context, vs *libipvs.Handle, scheduler string) *Lack {
	// RFC 3849: no Service has such an address.
	err := tryVirtual(vs, netip.MustParseAddr("2001:db8::"), scheduler)
	if err == nil || ctx.Err() != nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		return nil // the check of the scheduler has said it
	}
	return &Lack{What: fmt.Sprintf("IPVS does not work for IPv6 (%v)", err), Means: "Services with IPv6 addresses cannot be programmed", Cure: "use a kernel with CONFIG_IP_VS_IPV6 and IPv6 not disabled"}
}

// tryVirtual adds a virtual server and removes it. A port that is taken is somebody's, however unlikely: the next.
func tryVirtual(vs *libipvs.Handle, addr netip.Addr, scheduler string) error {
	op := ipvs.Op{Verb: ipvs.AddVirtual, Key: ipvs.Key{Addr: addr, Proto: ipvs.TCP}, Config: ipvs.Config{Scheduler: scheduler}}
	if err := op.Validate(); err != nil {
		return err
	}
	err := error(unix.EEXIST)
	for port := uint16(20000); port < 20010 && errors.Is(err, unix.EEXIST); port++ {
		op.Key.Port = port
		s := service(op.Key, op.Config)
		if err = vs.NewService(&s); err == nil {
			return vs.DelService(&s) //nolint:wrapcheck // the caller words it
		}
	}
	return err //nolint:wrapcheck // the caller words it
}
