package controlplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Options says where and how the control plane runs. Dir and BinDir are required.
type Options struct {
	// Dir holds data, credentials and logs: etcd.log, kube-apiserver.log. It is created if need be, and must
	// not be in use by another control plane.
	Dir string
	// BinDir is where etcd and kube-apiserver are: what hack/build-apiserver prints.
	BinDir string
	// ListenAddr is where the API server listens. Default 127.0.0.1. On any other address than a loopback or
	// an unspecified one, the API server also publishes itself as the endpoint of the kubernetes Service.
	ListenAddr netip.Addr
	// Port is the API server's port; 0 chooses a free one.
	Port uint16
	// ServiceCIDRs are the ranges of cluster addresses, at most one for each family, the main family first: it
	// must be that of ListenAddr if the API server publishes itself. Default 10.96.0.0/16 and fd00:96::/112.
	ServiceCIDRs []netip.Prefix
	// Data is a folder with the stored objects of an earlier control plane, see [ControlPlane.Data], to begin with. It
	// is copied and stays as it is. Default: nothing is stored.
	Data string
	// Netns names the network namespace, as ip-netns does, that the API server listens in; "" is the caller's.
	// Its loopback is brought up. This needs CAP_SYS_ADMIN.
	Netns string
}

// complete returns the options with defaults in place of what is not set. It creates Dir.
func (o Options) complete() (Options, error) {
	if o.Dir == "" || o.BinDir == "" {
		return o, errors.New("control plane options: Dir and BinDir are required")
	}
	// Absolute, because the processes do not run in the caller's folder.
	for _, path := range []*string{&o.Dir, &o.BinDir} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return o, fmt.Errorf("make %s absolute: %w", *path, err)
		}
		*path = abs
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return o, fmt.Errorf("create control plane folder: %w", err)
	}
	if o.Data != "" {
		if err := os.CopyFS(filepath.Join(o.Dir, etcdData), os.DirFS(o.Data)); err != nil {
			return o, fmt.Errorf("copy stored objects: %w", err)
		}
	}
	if !o.ListenAddr.IsValid() {
		o.ListenAddr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if len(o.ServiceCIDRs) == 0 {
		o.ServiceCIDRs = []netip.Prefix{
			netip.MustParsePrefix("10.96.0.0/16"),
			netip.MustParsePrefix("fd00:96::/112"),
		}
	}
	if o.Port == 0 {
		port, err := freePort(o.Netns, o.ListenAddr)
		if err != nil {
			return o, err
		}
		o.Port = port
	}
	return o, nil
}

// serverAddr is the address under which the API server's own namespace reaches it.
func (o Options) serverAddr() netip.Addr {
	switch {
	case !o.ListenAddr.IsUnspecified():
		return o.ListenAddr
	case o.ListenAddr.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		return netip.IPv6Loopback()
	}
}

// published reports whether the API server is an endpoint of the kubernetes Service, which no loopback address
// may be.
func (o Options) published() bool { return !o.serverAddr().IsLoopback() }

// certAddrs are the addresses that the API server's certificate is valid for: its own, and those of the
// kubernetes Service, which get the first address of each range.
func (o Options) certAddrs() []netip.Addr {
	addrs := []netip.Addr{o.serverAddr()}
	for _, cidr := range o.ServiceCIDRs {
		addrs = append(addrs, cidr.Masked().Addr().Next())
	}
	return addrs
}

// command returns a program of BinDir, to run in Dir and Netns.
func (o Options) command(program string, args []string) command {
	return command{
		name:  program,
		path:  filepath.Join(o.BinDir, program),
		args:  args,
		dir:   o.Dir,
		log:   filepath.Join(o.Dir, program+".log"),
		netns: o.Netns,
	}
}

// etcdArgs lets etcd listen on Unix sockets only: they take no port, and reach across network namespaces.
func etcdArgs() []string {
	client, peer := "unix://"+etcdSocket, "unix://"+etcdPeerSocket
	return []string{
		"--data-dir=" + etcdData,
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		// The data need not survive a power cut, and syncing each write would be most of the time it takes.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func (o Options) apiserverArgs() []string {
	reconciler := "none"
	if o.published() {
		reconciler = "lease"
	}
	var cidrs []string
	for _, cidr := range o.ServiceCIDRs {
		cidrs = append(cidrs, cidr.String())
	}
	return slices.Concat([]string{
		"--etcd-servers=unix://" + etcdSocket,
		"--bind-address=" + o.ListenAddr.String(),
		"--secure-port=" + strconv.Itoa(int(o.Port)),
		// Without it the API server looks for a default route, which a test's namespace need not have.
		"--advertise-address=" + o.serverAddr().String(),
		"--endpoint-reconciler-type=" + reconciler,
		"--service-cluster-ip-range=" + strings.Join(cidrs, ","),
		"--authorization-mode=RBAC",
		"--allow-privileged",
		// The plugin rejects Pods whose ServiceAccount the missing controller has not created.
		"--disable-admission-plugins=ServiceAccount",
	}, credentialArgs())
}
