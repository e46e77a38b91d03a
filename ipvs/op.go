package ipvs

import (
	"fmt"
	"net/netip"
)

// Verb says what an operation does.
type Verb uint8

// The operations on a namespace's IPVS state.
const (
	AddVirtual Verb = iota + 1
	EditVirtual
	DeleteVirtual
	AddReal
	EditReal
	DeleteReal
	Bind
	Unbind
	BindPort
	UnbindPort
)

var verbs = [...]string{ //nolint:gochecknoglobals // a constant table
	AddVirtual: "add virtual server", EditVirtual: "edit virtual server", DeleteVirtual: "delete virtual server",
	AddReal: "add real server", EditReal: "edit real server", DeleteReal: "delete real server",
	Bind: "bind", Unbind: "unbind", BindPort: "bind port", UnbindPort: "unbind port",
}

// String returns words such as "add real server".
func (v Verb) String() string {
	if int(v) < len(verbs) && verbs[v] != "" {
		return verbs[v]
	}
	return fmt.Sprintf("verb %d", v)
}

// Op is one operation. Which fields count depends on the verb: Key for all but Bind and Unbind, Config for
// AddVirtual and EditVirtual, Real for the three on real servers (its weight not for DeleteReal), Prefix for Bind
// and Unbind, Source for Bind and BindPort.
type Op struct {
	Verb   Verb
	Key    Key
	Config Config
	Real   RealServer
	Prefix netip.Prefix
	Source netip.Addr
}

// String prints the operation as it will run, for example
// "add real server TCP 10.96.0.10:80 10.244.1.5:8080 weight 1".
func (o Op) String() string {
	switch o.Verb {
	case AddVirtual, EditVirtual:
		return fmt.Sprintf("%s %s %s", o.Verb, o.Key, o.Config)
	case AddReal, EditReal:
		return fmt.Sprintf("%s %s %s weight %d", o.Verb, o.Key, o.Real.Dest, o.Real.Weight)
	case DeleteReal:
		return fmt.Sprintf("%s %s %s", o.Verb, o.Key, o.Real.Dest)
	case Bind:
		if o.Source.IsValid() {
			return fmt.Sprintf("%s %s source %s", o.Verb, o.Prefix, o.Source)
		}
		return fmt.Sprintf("%s %s", o.Verb, o.Prefix)
	case BindPort:
		if o.Source.IsValid() {
			return fmt.Sprintf("%s %s source %s", o.Verb, o.Key, o.Source)
		}
		return fmt.Sprintf("%s %s", o.Verb, o.Key)
	case Unbind:
		return fmt.Sprintf("%s %s", o.Verb, o.Prefix)
	default:
		return fmt.Sprintf("%s %s", o.Verb, o.Key)
	}
}

// String prints the configuration as in "rr persistent 10800s flags sched-1".
func (c Config) String() string {
	s := c.Scheduler
	if c.Persistence > 0 {
		s += fmt.Sprintf(" persistent %ds", int(c.Persistence.Seconds()))
	}
	if c.Flags != 0 {
		s += " flags " + c.Flags.String()
	}
	return s
}

// String names the flags as ipvsadm does, such as "ops" or "flag-1,flag-2".
func (f Flags) String() string {
	names := []struct {
		bit  Flags
		name string
	}{{FlagOnePacket, "ops"}, {FlagSched1, "flag-1"}, {FlagSched2, "flag-2"}, {FlagSched3, "flag-3"}, {FlagForeign, "foreign"}}
	s := ""
	for _, n := range names {
		if f&n.bit != 0 {
			if s != "" {
				s += ","
			}
			s += n.name
		}
	}
	return s
}

// OpError is a failed operation.
type OpError struct {
	Op  Op
	Err error // unwraps to the kernel's unix.Errno where there is one
}

// Error names the operation, the object and the cause.
func (e *OpError) Error() string { return fmt.Sprintf("ipvs: %s: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
