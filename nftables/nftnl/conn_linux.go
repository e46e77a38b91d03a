package nftnl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/internal/nlsock"
	"github.com/kube-hop/kube-hop/nftables"
)

const (
	// receiveSize holds any message: the kernel builds listings in buffers of at most 32 kB.
	receiveSize = 64 << 10
	headSize    = unix.NLMSG_HDRLEN + 4 // struct nlmsghdr and struct nfgenmsg (linux/netfilter/nfnetlink.h)
)

// conn is a netlink socket to nf_tables. It stays in the network namespace that it was opened in.
type conn struct {
	*nlsock.Socket

	seq uint32
}

func dial() (*conn, error) {
	s, err := nlsock.Open(unix.NETLINK_NETFILTER, receiveSize, true)
	return &conn{Socket: s}, err
}

// request is one message to nf_tables.
type request struct {
	cmd    uint8
	family nftables.Family
	flags  uint16
	attrs  []byte
}

// appendRequest appends a message of nf_tables; subsystem and resource are those of struct nfgenmsg.
func appendRequest(b []byte, r request, seq uint32) []byte {
	b = appendHead(b, unix.NFNL_SUBSYS_NFTABLES<<8|uint16(r.cmd), r.flags, seq)
	b = append(b, uint8(r.family), unix.NFNETLINK_V0, 0, 0)
	b = append(b, r.attrs...)
	binary.NativeEndian.PutUint32(b[len(b)-len(r.attrs)-headSize:], uint32(headSize+len(r.attrs))) //nolint:gosec // short
	return b
}

func appendHead(b []byte, typ, flags uint16, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, headSize)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	return binary.NativeEndian.AppendUint32(b, 0) // the kernel knows our port
}

// appendMark appends the message that begins or ends a batch.
func appendMark(b []byte, typ uint16, seq uint32) []byte {
	b = appendHead(b, typ, 0, seq)
	return append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES) // the subsystem, in network order
}

// transact sends requests as one transaction. It happens only if none is refused; refused holds what the kernel said
// about each that it did. With try the transaction is not brought to its end, so that it never happens.
func (c *conn) transact(requests []request, try bool) (refused map[int]error, err error) {
	begin := c.seq + 1
	c.seq = begin + uint32(len(requests)) //nolint:gosec // few
	out := appendMark(nil, unix.NFNL_MSG_BATCH_BEGIN, begin)
	for i, r := range requests {
		if i == len(requests)-1 {
			// The kernel answers in order, and unless asked only what it refuses: with the last answer all are known.
			r.flags |= unix.NLM_F_ACK
		}
		out = appendRequest(out, r, begin+1+uint32(i)) //nolint:gosec // few
	}
	if !try {
		c.seq++
		out = appendMark(out, unix.NFNL_MSG_BATCH_END, c.seq)
	}
	if err := c.Send(out); err != nil {
		return nil, err
	}
	return c.answers(begin, len(requests))
}

// answers reads until the answer to the last of n requests that follow the message numbered begin.
func (c *conn) answers(begin uint32, n int) (refused map[int]error, err error) {
	for {
		b, err := c.Receive()
		if err != nil {
			return refused, err
		}
		end := false
		err = eachMessage(b, func(typ uint16, seq uint32, body []byte) error {
			i := int(int32(seq - begin)) //nolint:gosec // the distance on the circle
			if typ != unix.NLMSG_ERROR || i < 0 || end {
				return nil // the rest of an answer that was given up
			}
			errno, err := parseErrno(body)
			switch {
			case err != nil:
				return err
			case errno != 0 && (i == 0 || i > n):
				return fmt.Errorf("transaction: %w", errno)
			case errno != 0:
				if refused == nil {
					refused = map[int]error{}
				}
				refused[i-1] = errno
			}
			end = i >= n
			return nil
		})
		if err != nil || end {
			return refused, err
		}
	}
}

// ask sends a request for one thing and returns the attributes of the answer.
func (c *conn) ask(r request) (answer []byte, err error) {
	broken := c.askEach([]request{r}, func(_ int, a []byte, refused error) { answer, err = a, refused })
	if broken != nil {
		return nil, broken
	}
	return answer, err
}

// maxAsk is how many things are asked for at a time at most. The kernel makes a message of up to 8 kB for the answer to
// each, and all of them have to fit into the socket's receive buffer (net.core.rmem_default, 212992 by default).
const maxAsk = 16

// askEach sends requests for one thing each, in one system call, and calls each with the number of every request and the
// attributes of the answer, or what the kernel says instead. The attributes are valid until each returns.
func (c *conn) askEach(requests []request, each func(i int, answer []byte, err error)) error {
	begin := c.seq + 1
	var out []byte
	for _, r := range requests {
		c.seq++
		out = appendRequest(out, r, c.seq)
	}
	if err := c.Send(out); err != nil {
		return err
	}
	for left := len(requests); left > 0; {
		b, err := c.Receive()
		if err != nil {
			return err
		}
		err = eachMessage(b, func(typ uint16, seq uint32, body []byte) error {
			i := int(int32(seq - begin)) //nolint:gosec // the distance on the circle
			if i < 0 || i >= len(requests) {
				return nil // the rest of an answer that was given up
			}
			left--
			if typ != unix.NLMSG_ERROR {
				each(i, body[min(4, len(body)):], nil)
				return nil
			}
			errno, err := parseErrno(body)
			switch {
			case err != nil:
				return err
			case errno != 0:
				each(i, nil, errno)
			default:
				each(i, nil, nil)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dump sends a request for a listing and calls each with the attributes of every message of the answer. They are
// valid until each returns.
func (c *conn) dump(r request, each func(attrs []byte) error) error {
	c.seq++
	r.flags |= unix.NLM_F_DUMP
	out := appendRequest(nil, r, c.seq)
	if err := c.Send(out); err != nil {
		return err
	}
	var failed error // of each; the answer is read to its end all the same
	for end := false; !end; {
		b, err := c.Receive()
		if err != nil {
			return errors.Join(failed, err)
		}
		err = eachMessage(b, func(typ uint16, seq uint32, body []byte) error {
			switch {
			case seq != c.seq:
			case typ == unix.NLMSG_DONE:
				end = true
			case typ == unix.NLMSG_ERROR:
				end = true
				errno, err := parseErrno(body)
				if err == nil && errno != 0 {
					err = errno
				}
				return err
			case len(body) < 4:
				return nlattr.ErrShort
			case failed == nil:
				failed = each(body[4:])
			}
			return nil
		})
		if err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// errInterrupted says that what was listed changed meanwhile.
var errInterrupted = errors.New("changed while it was listed")

// eachMessage calls f for every message of a datagram, with what follows its header.
func eachMessage(b []byte, f func(typ uint16, seq uint32, body []byte) error) error {
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return nlattr.ErrShort
		}
		err := f(binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:n])
		if err != nil {
			return err
		}
		if binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_DUMP_INTR != 0 {
			return errInterrupted
		}
		b = b[min(nlattr.Align4(n), len(b)):]
	}
	return nil
}

// parseErrno reads a struct nlmsgerr; 0 is the acknowledgement.
func parseErrno(b []byte) (unix.Errno, error) {
	if len(b) < 4 {
		return 0, nlattr.ErrShort
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(b))), nil //nolint:gosec // a negative errno
}
