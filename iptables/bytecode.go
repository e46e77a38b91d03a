package iptables

// Programs for "-m bpf --bytecode" that match packets whose source is their destination, as those of a pod are
// that reached itself through a Service. They load a word of the source, keep it in X, load the word of the
// destination and compare: once for IPv4, four times for IPv6. Offsets count from the IP header. Verified on
// Linux 6.12 and 6.18 by packages iptables/iptexec's tests.
const (
	SameAddressIPv4 = "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0"
	SameAddressIPv6 = "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0," +
		"32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,6 0 0 65535,6 0 0 0"
)
