//go:build e2e && linux

package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/internal/nlsock"
)

// nftHead is the size of struct nlmsghdr and struct nfgenmsg. Source: linux/netfilter/nfnetlink.h.
const nftHead = unix.NLMSG_HDRLEN + 4

// nftObserver asks nf_tables for what kube-proxy 1.37 writes. The chain of a Service port has one rule, which looks an
// endpoint up in a map without a name of its own; a change replaces rule and map in one transaction.
type nftObserver struct {
	sock *nlsock.Socket
	seq  uint32
}

func (o *nftObserver) close() error { return o.sock.Close() }

func (o *nftObserver) holds(_ context.Context, i int, endpoint netip.Addr) (bool, error) {
	table := nlattr.AppendString(nil, unix.NFTA_RULE_TABLE, "kube-proxy")
	var endpoints string // the name of the map
	err := o.ask(unix.NFT_MSG_GETRULE, unix.NFPROTO_IPV4, nlattr.AppendString(table, unix.NFTA_RULE_CHAIN, serviceChain(i)), func(b []byte) error {
		name, err := lookedUp(b)
		endpoints = max(endpoints, name)
		return err
	})
	found := false
	if err == nil && endpoints != "" {
		table = nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, "kube-proxy")
		// The value of an element is address and port in network order.
		value := binary.BigEndian.AppendUint16(endpoint.AsSlice(), podPort)
		err = o.ask(unix.NFT_MSG_GETSETELEM, unix.NFPROTO_IPV4, nlattr.AppendString(table, unix.NFTA_SET_ELEM_LIST_SET, endpoints), func(b []byte) error {
			found = found || bytes.Contains(b, value)
			return nil
		})
	}
	if errors.Is(err, unix.ENOENT) { // no such chain yet, or the map was replaced right now
		return false, nil
	}
	return found, err
}

// serviceChain is the name that kube-proxy 1.37 gives the chain of the i-th Service's port.
func serviceChain(i int) string {
	name := fmt.Sprintf("%s/%s/tcp/", namespace, serviceName(i))
	sum := sha256.Sum256([]byte(name))
	return "service-" + base32.StdEncoding.EncodeToString(sum[:])[:8] + "-" + name
}

// lookedUp returns the name of the map that a rule looks something up in; "" if it does not.
func lookedUp(rule []byte) (name string, err error) {
	data, err := attr(rule, unix.NFTA_RULE_EXPRESSIONS)
	if err != nil {
		return "", err
	}
	return name, nlattr.Each(data, func(_ uint16, expression []byte) error {
		kind, err := attr(expression, unix.NFTA_EXPR_NAME)
		if err != nil || string(kind) != "lookup\x00" {
			return err
		}
		data, err := attr(expression, unix.NFTA_EXPR_DATA)
		if err != nil {
			return err
		}
		set, err := attr(data, unix.NFTA_LOOKUP_SET)
		name = string(bytes.TrimRight(set, "\x00"))
		return err
	})
}

// attr returns the value of an attribute; nil if it is absent.
func attr(b []byte, typ uint16) (value []byte, err error) {
	err = nlattr.Each(b, func(t uint16, v []byte) error {
		if t == typ {
			value = v
		}
		return nil
	})
	return value, err
}

// commits implements observer with the generation number. Source: nf_tables_getgen in net/netfilter/nf_tables_api.c.
func (o *nftObserver) commits() (number uint32, err error) {
	if err := o.send(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, 0, nil); err != nil {
		return 0, err
	}
	_, err = o.receive(func(b []byte) error {
		v, err := attr(b, unix.NFTA_GEN_ID)
		if len(v) == 4 {
			number = binary.BigEndian.Uint32(v)
		}
		return err
	})
	return number, err
}

// ask requests a listing and calls each with the attributes of every message of the answer.
func (o *nftObserver) ask(cmd uint16, family uint8, attrs []byte, each func([]byte) error) error {
	if err := o.send(cmd, family, unix.NLM_F_DUMP, attrs); err != nil {
		return err
	}
	for {
		if end, err := o.receive(each); end || err != nil {
			return err
		}
	}
}

func (o *nftObserver) send(cmd uint16, family uint8, flags uint16, attrs []byte) error {
	o.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(nftHead+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|cmd)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, o.seq)
	b = append(b, 0, 0, 0, 0, family, unix.NFNETLINK_V0, 0, 0)
	return o.sock.Send(append(b, attrs...))
}

// receive reads one datagram and calls each with the attributes of its messages; end says that the listing has ended. The
// rest of an earlier answer that was given up is passed over.
func (o *nftObserver) receive(each func([]byte) error) (end bool, err error) {
	b, err := o.sock.Receive()
	if err != nil {
		return false, err
	}
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return false, nlattr.ErrShort
		}
		message, typ := b[:n], binary.NativeEndian.Uint16(b[4:])
		b = b[min(nlattr.Align4(n), len(b)):]
		switch {
		case binary.NativeEndian.Uint32(message[8:]) != o.seq:
		case typ == unix.NLMSG_DONE:
			end = true
		case typ == unix.NLMSG_ERROR && n >= unix.NLMSG_HDRLEN+4:
			return true, unix.Errno(-int32(binary.NativeEndian.Uint32(message[unix.NLMSG_HDRLEN:])))
		case n < nftHead:
			return false, nlattr.ErrShort
		default:
			if err := each(message[nftHead:]); err != nil {
				return false, err
			}
		}
	}
	return end, nil
}
