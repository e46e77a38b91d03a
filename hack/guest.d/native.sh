# shellcheck shell=bash disable=SC2154 # the settings come from hack/guest
# Part of hack/guest: use this machine's own kernel where it has what is needed.

# native_ok succeeds if IPVS and dummy devices work here, in a network namespace of our own.
native_ok() {
	((EUID == 0)) || { say "not native: not root" && return 1; }
	unshare -nm true 2>/dev/null || { say "not native: cannot make network namespaces" && return 1; }
	modprobe -qa ip_vs br_netfilter 2>/dev/null || true # may be built in; the checks below decide
	unshare -nm test -e /proc/net/ip_vs || { say "not native: this kernel has no IPVS" && return 1; }
	unshare -nm ip link add probe type dummy 2>/dev/null ||
		{ say "not native: this kernel has no dummy devices" && return 1; }
}

# run_native_or_machine replaces us by COMMAND, or runs it in a machine.
run_native_or_machine() {
	if ! native_ok; then
		setup
		run_machine
	fi
	mkdir -p /run/netns
	# The names of the namespaces that COMMAND makes must be its own too, and /sys must show its devices.
	# shellcheck disable=SC2016
	exec env "${env[@]}" unshare -nm --propagation private /bin/sh -ec '
		mount -t tmpfs tmpfs /run/netns
		mount -t sysfs sysfs /sys
		mount -t bpf bpf /sys/fs/bpf
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		ip link set lo up
		limit=$1
		shift
		exec timeout -k 5 "$limit" "$@"
	' sh "$limit" "${command[@]}"
}
