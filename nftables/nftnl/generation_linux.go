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
	c.seq++
	request := request{cmd: unix.NFT_MSG_GETGEN, family: nftables.Family(unix.AF_UNSPEC)}
	if err := c.Send(appendRequest(nil, request, c.seq)); err != nil {
		return 0, err
	}
	for {
		b, err := c.Receive()
		if err != nil {
			return 0, err
		}
		var id []byte
		answered := false
		err = eachMessage(b, func(typ uint16, seq uint32, body []byte) error {
			if seq != c.seq {
				return nil // the rest of an answer that was given up
			}
			answered = true
			if typ == unix.NLMSG_ERROR {
				errno, err := parseErrno(body)
				if err == nil {
					err = errno
				}
				return err
			}
			a, err := attrs(body[min(4, len(body)):])
			id = a[unix.NFTA_GEN_ID]
			return err
		})
		switch {
		case err != nil:
			return 0, err
		case answered && len(id) != 4:
			return 0, errNoGeneration
		case answered:
			return number(id), nil
		}
	}
}
