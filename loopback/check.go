package loopback

import (
	"fmt"

	"github.com/kube-hop/kube-hop/iptables"
)

// The protocols whose sockets the kernel lets us redirect.
const (
	protoTCP = 6
	protoUDP = 17
)

// Check reports, as an [iptables.ErrEntry], why no table can hold the entry.
func Check(e iptables.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	switch {
	case e.Type() != iptables.HashIPPort:
		return fmt.Errorf("%w: %s is not an address with a port", iptables.ErrEntry, e)
	case e.Proto != protoTCP && e.Proto != protoUDP:
		return fmt.Errorf("%w: protocol %d cannot be redirected", iptables.ErrEntry, e.Proto)
	}
	return nil
}
