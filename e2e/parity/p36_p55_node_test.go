//go:build e2e && linux

package parity

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// device gives a host a dummy device with addresses; the function takes it away, as the end of the row does.
func (r *row) device(h *testbed.Host, name string, at ...netip.Addr) (remove func()) {
	r.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Dummy{LinkAttrs: attrs}
	r.must(h.Do(func() error {
		err := errors.Join(netlink.LinkAdd(link), netlink.LinkSetUp(link))
		for _, a := range at {
			err = errors.Join(err, netlink.AddrAdd(link, &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice())}))
		}
		return err
	}))
	removed := false
	remove = func() {
		if removed {
			return
		}
		removed = true
		if err := h.Do(func() error { return netlink.LinkDel(link) }); err != nil {
			r.Errorf("%v", err)
		}
	}
	r.Cleanup(remove)
	return remove
}

// ends waits until a request ends as wanted.
func (r *row) ends(from *testbed.Host, proto testbed.Proto, dst netip.AddrPort, want outcome) {
	r.Helper()
	r.until(fmt.Sprintf("%s to %s %s", proto, dst, want.text), func() error { return r.check(from, proto, dst, want) })
}

// TestP36FromTheNode: the node reaches ClusterIPs whatever tells pods from others.
func TestP36FromTheNode(t *testing.T) {
	r := begin(t, "P36", "The node reaches ClusterIPs with local and remote endpoints and shows its address, in every detect-local mode")
	s := r.service("p36")
	s.endpoints(ready(r.A1), ready(r.B1))
	node, err := r.client.CoreV1().Nodes().Get(r.Context(), r.N1.Name, metav1.GetOptions{})
	r.must(err)
	if len(node.Spec.PodCIDRs) == 0 {
		node.Spec.PodCIDR, node.Spec.PodCIDRs = "10.244.1.0/24", []string{"10.244.1.0/24", "fd24:0:0:1::/64"}
		_, err = r.client.CoreV1().Nodes().Update(r.Context(), node, metav1.UpdateOptions{})
		r.must(err)
	}
	for _, mode := range [][]string{
		{"--detect-local-mode=ClusterCIDR"},
		{"--detect-local-mode=NodeCIDR"},
		{"--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cbr0"},
		{"--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=cb"},
		{"--cluster-cidr="},
	} {
		r.restart(r.N1, mode...)
		for _, dst := range s.C().at {
			if err := r.check(r.N1, testbed.TCP, dst, answeredBy(r.A1, r.B1).seeing(r.N1)); err != nil {
				r.Errorf("%s: n1 to C (%s): %v", mode[0], dst, err)
			}
		}
	}
}

// TestP37NodeAddresses: node ports follow addresses, and never take a Service's address for a node's.
func TestP37NodeAddresses(t *testing.T) {
	r := begin(t, "P37", "Node ports follow the node's addresses, and a selection that covers the Service range takes no VIP for a node address")
	s := r.service("p37")
	s.endpoints(ready(r.A1))
	r.settle()
	late := netip.MustParseAddr("192.168.77.7")
	dst := netip.AddrPortFrom(late, s.N(r.N1).at[0].Port())
	remove := r.device(r.N1, "late", late)
	r.ends(r.A2, testbed.TCP, dst, answeredBy(r.A1))
	remove()
	r.until("no node port on an address that is gone", func() error {
		if _, err := r.A2.Ask(r.Context(), testbed.TCP, dst, testbed.Timeout(dropTime)); err == nil {
			return errors.New("it still answers")
		}
		return nil
	})
	r.restart(r.N1, "--nodeport-addresses=0.0.0.0/1,128.0.0.0/1,fd00::/8")
	port := s.N(r.N1).at[0].Port()
	r.expect(r.A2, s.N(r.N1), answeredBy(r.A1))
	for _, f := range []frontend{s.C(), s.V(), s.E()} {
		r.expect(r.A2, f.onPort(port), refused())
	}
	r.restart(r.N1, "--nodeport-addresses=primary")
	r.expect(r.A2, s.N(r.N1), answeredBy(r.A1))
	for _, a := range []netip.Addr{r.N1.Gateway4, r.N1.Gateway6} {
		r.expect(r.A2, at("the bridge's address", testbed.TCP, port, a), refused())
	}
}

// TestP40BridgeFilter: two pods on one bridge, or a word about what is missing.
func TestP40BridgeFilter(t *testing.T) {
	r := begin(t, "P40", "Two pods on one bridge reach each other through a Service, or an event and the log name the sysctl that is wrong")
	s := r.service("p40")
	s.endpoints(ready(r.A1))
	r.settle()
	set := func(value string) error {
		return r.N1.Do(func() error {
			return errors.Join(
				os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte(value), 0),
				os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-ip6tables", []byte(value), 0),
			)
		})
	}
	r.Cleanup(func() {
		if err := set("1"); err != nil {
			r.Errorf("%v", err)
		}
	})
	r.must(set("0"))
	r.restart(r.N1)
	served := true
	for _, dst := range s.C().at {
		served = served && r.check(r.A2, testbed.TCP, dst, answeredBy(r.A1)) == nil
	}
	if !served {
		r.until("an event about bridge-nf-call-iptables", func() error {
			list, err := r.client.EventsV1().Events(metav1.NamespaceAll).List(r.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, e := range list.Items {
				if e.Regarding.Kind == "Node" && strings.Contains(e.Note, "bridge-nf-call-iptables") {
					return nil
				}
			}
			return errors.New("the Service does not answer, and nobody says why")
		})
	}
	r.must(set("1"))
	r.expect(r.A2, s.C(), answeredBy(r.A1).seeing(r.A2))
}

// TestP55LocalListener: a node-local cache of the cluster's DNS.
func TestP55LocalListener(t *testing.T) {
	r := begin(t, "P55", "A listener on the node can own a ClusterIP that is exempted; when it is gone the Service answers")
	s := r.service("p55", over(testbed.TCP, testbed.UDP), annotated("kube-hop.io/local-listener", "true"))
	s.endpoints(ready(r.A1))
	r.settle()
	c := s.C().at[0]
	linkLocal := netip.MustParseAddr("169.254.20.10")
	r.serve(r.N1, testbed.UDP, c.Port())
	remove := r.device(r.N1, "nodelocaldns", linkLocal, c.Addr())
	r.expect(r.A2, at("link-local listener", testbed.UDP, c.Port(), linkLocal), answeredBy(r.N1))
	r.ends(r.A2, testbed.UDP, c, answeredBy(r.N1))
	remove()
	r.ends(r.A2, testbed.UDP, c, answeredBy(r.A1))
}

// TestP47Sysctls: the kernel settings that IPVS needs are kept, whoever writes them.
func TestP47Sysctls(t *testing.T) {
	r := begin(t, "P47", "The kernel settings that the proxy depends on are restored when another program changes them, and traffic goes on")
	r.onlyIPVS()
	s := r.service("p47")
	s.endpoints(ready(r.A1), ready(r.B1))
	r.settle()
	read := func(path string) (value string) {
		r.must(r.N1.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/" + path)
			value = strings.TrimSpace(string(b))
			return err
		}))
		return value
	}
	paths := []string{
		"ipv4/vs/conntrack", "ipv4/vs/expire_nodest_conn", "ipv4/vs/expire_quiescent_template", "ipv4/vs/conn_reuse_mode", "ipv4/ip_forward",
	}
	for _, path := range paths {
		before := read(path)
		r.Cleanup(func() {
			_ = r.N1.Do(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(before), 0) })
		})
		r.must(r.N1.Do(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte("0"), 0) }))
	}
	r.until("settings as they must be", func() error {
		for _, path := range paths {
			if got := read(path); got != "1" {
				return fmt.Errorf("%s is %s", path, got)
			}
		}
		return nil
	})
	for _, f := range s.externals(r.N1) {
		r.expect(r.Out, f, answeredBy(r.A1, r.B1))
	}
}
