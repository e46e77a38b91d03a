package nftnl

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/nftables"
)

// Generation implements nftables.Tables. Source: nf_tables_getgen in net/netfilter/nf_tables_api.c.
func (t *Tables) Generation(ctx context.Context) (uint32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := ctx.Err()
	var number uint32
	if err == nil {
		number, err = t.conn.generation()
	}
	if err != nil {
		return 0, fmt.Errorf("nftables: generation: %w", err)
	}
	return number, nil
}

// errNoGeneration is the answer of a kernel that knows no generations, which is older than any with maps of marks.
var errNoGeneration = errors.New("the kernel does not tell it")

func (c *conn) generation() (uint32, error) {
	answer, err := c.ask(request{cmd: unix.NFT_MSG_GETGEN, family: nftables.Family(unix.AF_UNSPEC)})
	if err != nil {
		return 0, err
	}
	a, err := attrs(answer)
	if err == nil && len(a[unix.NFTA_GEN_ID]) != 4 {
		err = errNoGeneration
	}
	return number(a[unix.NFTA_GEN_ID]), err
}
