//go:build e2e

package controlplane_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/controlplane"
)

const port = 6443

// TestReachedFromOtherNamespace joins two namespaces by a veth pair: the API server is in one, a node in the other.
func TestReachedFromOtherNamespace(t *testing.T) {
	const serverNetns, nodeNetns = "kube-hop-test-server", "kube-hop-test-node"
	server, node := createNetns(t, serverNetns), createNetns(t, nodeNetns)
	addr := netip.MustParseAddr("192.0.2.1")
	createVeth(t, server, node, addr, addr.Next())

	cp := start(t, controlplane.Options{Netns: serverNetns, ListenAddr: addr, Port: port})
	createDualStack(t.Context(), t, cp.Client())

	target := netip.AddrPortFrom(addr, port).String()
	within(t, node, func() {
		conn, err := net.DialTimeout("tcp", target, time.Second)
		if err != nil {
			t.Errorf("the node does not reach the API server: %v", err)
			return
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	slices := cp.Client().DiscoveryV1().EndpointSlices("default")
	endpoints, err := slices.Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(endpoints.Endpoints) != 1 || endpoints.Endpoints[0].Addresses[0] != addr.String() {
		t.Errorf("got endpoints %v of the kubernetes service, want %s", endpoints.Endpoints, addr)
	}
}

// createNetns creates a named network namespace that lasts as long as the test.
func createNetns(t *testing.T, name string) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	handle, err := netns.NewNamed(name) // enters it too
	if err != nil {
		if os.Getenv("REQUIRE_KERNEL") == "1" || os.Geteuid() == 0 {
			t.Fatalf("create network namespace %s: %v", name, err)
		}
		t.Skipf("only root may create network namespaces: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(handle.Close(), netns.DeleteNamed(name)); err != nil {
			t.Errorf("delete network namespace %s: %v", name, err)
		}
	})
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	return handle
}

// createVeth joins two namespaces, each with its address.
func createVeth(t *testing.T, a, b netns.NsHandle, addrA, addrB netip.Addr) {
	t.Helper()
	within(t, a, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "veth0"
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "veth0", PeerNamespace: netlink.NsFd(b)}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Fatal(err)
		}
	})
	for ns, addr := range map[netns.NsHandle]netip.Addr{a: addrA, b: addrB} {
		within(t, ns, func() {
			link, err := netlink.LinkByName("veth0")
			if err != nil {
				t.Fatal(err)
			}
			ip := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetUp(link); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// within calls f on a thread in the namespace.
func within(t *testing.T, ns netns.NsHandle, f func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(home); err != nil {
			t.Error(err) // and the thread stays locked: nothing else may run on it
			return
		}
		runtime.UnlockOSThread()
	}()
	f()
}
