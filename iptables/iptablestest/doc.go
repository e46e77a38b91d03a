// Package iptablestest holds in-memory implementations of the contracts of package iptables, and the suites that
// they and the kernel edges both pass.
package iptablestest
