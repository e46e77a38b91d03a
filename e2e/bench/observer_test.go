//go:build e2e && linux

package bench

import (
	"context"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/e2e/bench/result"
	"github.com/kube-hop/kube-hop/e2e/testbed"
	"github.com/kube-hop/kube-hop/internal/nlsock"
	"github.com/kube-hop/kube-hop/ipvs"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
)

// observer looks into a node's kernel for what a subject has programmed. It is for one goroutine.
type observer interface {
	// holds tells whether connections to the i-th Service can reach the endpoint. It costs one or two requests.
	holds(ctx context.Context, i int, endpoint netip.Addr) (bool, error)
	// commits counts the changes of nf_tables on the node, whoever made them.
	commits() (uint32, error)
	close() error
}

// newObserver returns the one that fits the subject.
func newObserver(s subject, node *testbed.Host) (o observer, err error) {
	err = node.Do(func() error {
		sock, err := nlsock.Open(unix.NETLINK_NETFILTER, 64<<10, true)
		if err != nil {
			return err
		}
		nft := &nftObserver{sock: sock}
		if s.name == result.NFTables {
			o = nft
			return nil
		}
		table, err := ipvsnl.Open(ipvsnl.Options{})
		o = &ipvsObserver{nftObserver: nft, table: table}
		return err
	})
	return o, err
}

// ipvsObserver asks IPVS.
type ipvsObserver struct {
	*nftObserver

	table *ipvsnl.Table
}

func (o *ipvsObserver) holds(ctx context.Context, i int, endpoint netip.Addr) (bool, error) {
	k := ipvs.Key{Addr: clusterIP(i), Port: servicePort, Proto: ipvs.TCP}
	conns, err := o.table.Conns(ctx, k)
	if err != nil {
		return false, err
	}
	_, found := conns[ipvs.Dest{Addr: endpoint, Port: podPort}]
	return found, nil
}

func (o *ipvsObserver) close() error {
	o.table.Close()
	return o.nftObserver.close()
}
