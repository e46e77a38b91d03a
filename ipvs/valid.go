package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// ErrInvalid is wrapped by the errors of [Op.Validate].
var ErrInvalid = errors.New("invalid operation")

const (
	// MaxWeight is the largest weight that survives a round trip: the kernel stores more, moby/ipvs reads 16 bits.
	MaxWeight = 65535
	// MaxPersistence is the longest persistence that the kernel stores on every build: it multiplies the seconds
	// by its timer frequency, at most 1000 Hz, in 32 bits.
	MaxPersistence = (1<<32 - 1) / 1000 * time.Second
	// maxScheduler is the longest scheduler name. Source: IP_VS_SCHEDNAME_MAXLEN in linux/ip_vs.h, less the NUL.
	maxScheduler = 15
)

// Validate reports what makes an operation meaningless on every kernel. Some of it the kernel would accept and
// understand differently: the real server [fd00::1]:80 under an IPv4 virtual server becomes 253.0.0.0:80.
func (o Op) Validate() error {
	switch o.Verb {
	case AddVirtual, EditVirtual:
		return errors.Join(o.Key.validate(), o.Config.validate())
	case DeleteVirtual:
		return o.Key.validate()
	case AddReal, EditReal:
		return errors.Join(o.Key.validate(), o.Real.validate(o.Key), o.Real.validateWeight())
	case DeleteReal:
		return errors.Join(o.Key.validate(), o.Real.validate(o.Key))
	case Bind:
		return errors.Join(validatePrefix(o.Prefix), validateSource(o.Prefix, o.Source))
	case Unbind:
		return validatePrefix(o.Prefix)
	case BindPort:
		return errors.Join(o.Key.validatePort(), validateSource(host(o.Key.Addr), o.Source))
	case UnbindPort:
		return o.Key.validatePort()
	}
	return invalid("unknown %s", o.Verb)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// plain reports whether an address is in the form that keys use, so that one address has one key.
func plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }

func (k Key) validate() error {
	if !plain(k.Addr) {
		return invalid("virtual server address %s", k.Addr)
	}
	if k.Mark != 0 {
		if !k.Addr.IsUnspecified() || k.Port != 0 || k.Proto != 0 {
			return invalid("mark %d together with an address, port or protocol", k.Mark)
		}
		return nil
	}
	switch k.Proto {
	case TCP, UDP, SCTP:
		return nil
	}
	return invalid("virtual server of %s", k.Proto)
}

// validatePort is validate for a port that is made local; port 0 would be all of them.
func (k Key) validatePort() error {
	if k.Mark != 0 || k.Port == 0 {
		return invalid("port of %s", k)
	}
	return k.validate()
}

// host returns the full-length prefix of an address, the zero Prefix for an invalid one.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (c Config) validate() error {
	if c.Scheduler == "" || len(c.Scheduler) > maxScheduler || strings.ContainsRune(c.Scheduler, 0) {
		return invalid("scheduler %q", c.Scheduler)
	}
	if c.Persistence < 0 || c.Persistence > MaxPersistence || c.Persistence%time.Second != 0 {
		return invalid("persistence %s", c.Persistence)
	}
	if c.Flags&^FlagsAll != 0 {
		return invalid("flags %#x", uint32(c.Flags))
	}
	return nil
}

func (r RealServer) validate(k Key) error {
	if !plain(r.Addr) || r.Addr.Is4() != k.Addr.Is4() {
		return invalid("real server address %s of %s", r.Addr, k)
	}
	return nil
}

func (r RealServer) validateWeight() error {
	if r.Weight < 0 || r.Weight > MaxWeight {
		return invalid("weight %d", r.Weight)
	}
	return nil
}

func validatePrefix(p netip.Prefix) error {
	// Length zero would make every address local.
	if !p.IsValid() || !plain(p.Addr()) || p.Bits() == 0 || p != p.Masked() {
		return invalid("prefix %s", p)
	}
	return nil
}

func validateSource(p netip.Prefix, source netip.Addr) error {
	if !source.IsValid() {
		return nil
	}
	if !plain(source) || source.IsUnspecified() || source.Is4() != p.Addr().Is4() {
		return invalid("source %s of prefix %s", source, p)
	}
	return nil
}
