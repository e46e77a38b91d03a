package ipsetnl

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/kube-hop/kube-hop/internal/nlattr"
	"github.com/kube-hop/kube-hop/internal/nlsock"
)

// receiveSize holds any message: a failed batch comes back whole (20 kB), and the kernel builds listings in
// buffers of at most 32 kB.
const receiveSize = 128 << 10

const nfgenSize = 4 // struct nfgenmsg in linux/netfilter/nfnetlink.h

// conn is a netlink socket to ipset. It stays in the network namespace that it was opened in.
type conn struct {
	*nlsock.Socket

	seq uint32
}

func dial() (*conn, error) {
	s, err := nlsock.Open(unix.NETLINK_NETFILTER, receiveSize, false) // a refused batch says in what it repeats which entry it is about
	return &conn{Socket: s}, err
}

// requestError is the kernel's answer to a request that failed.
type requestError struct {
	errno Errno
	line  uint32 // the entry of a batch, 0 if unknown
}

func (e *requestError) Error() string { return e.errno.Error() }
func (e *requestError) Unwrap() error { return e.errno }

// do sends one request and calls each, if not nil, with the attributes of every message of the answer. They are
// valid until each returns.
func (c *conn) do(cmd uint8, flags uint16, attrs []byte, each func(attrs []byte) error) error {
	c.seq++
	if err := c.Send(c.request(cmd, flags, attrs)); err != nil {
		return err
	}
	var errs []error // of each; the answer is read to its end all the same
	for {
		b, err := c.Receive()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return errors.Join(append(errs, nlattr.ErrShort)...)
			}
			end, err := c.message(b[:n], each)
			errs = append(errs, err)
			if end {
				return errors.Join(errs...)
			}
			b = b[min(nlattr.Align4(n), len(b)):]
		}
	}
}

func (c *conn) request(cmd uint8, flags uint16, attrs []byte) []byte {
	b := make([]byte, 0, unix.NLMSG_HDRLEN+nfgenSize+len(attrs))
	b = binary.NativeEndian.AppendUint32(b, uint32(cap(b)))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_IPSET<<8|uint16(cmd))
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)          // the kernel knows our port
	b = append(b, nfprotoIPv4, unix.NFNETLINK_V0, 0, 0) // ipset does not look at this family
	return append(b, attrs...)
}

// message handles one message and tells whether it is the answer's last.
func (c *conn) message(b []byte, each func([]byte) error) (end bool, err error) {
	if binary.NativeEndian.Uint32(b[8:]) != c.seq {
		return false, nil // the rest of an answer that was given up
	}
	body := b[unix.NLMSG_HDRLEN:]
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.NLMSG_NOOP:
		return false, nil
	case unix.NLMSG_DONE:
		return true, nil
	case unix.NLMSG_ERROR:
		return true, parseFailure(body)
	}
	if len(body) < nfgenSize {
		return false, nlattr.ErrShort
	}
	if each == nil {
		return false, nil
	}
	return false, each(body[nfgenSize:])
}

// parseFailure reads a struct nlmsgerr, which repeats our request; an error number of 0 is the acknowledgement.
func parseFailure(b []byte) error {
	if len(b) < 4 {
		return nlattr.ErrShort
	}
	n := int32(binary.NativeEndian.Uint32(b))
	if n == 0 {
		return nil
	}
	e := &requestError{errno: Errno(-n)}
	const repeated = 4 + unix.NLMSG_HDRLEN + nfgenSize
	if len(b) > repeated {
		e.line = failedLine(b[repeated:])
	}
	return e
}
