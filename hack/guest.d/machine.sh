# shellcheck shell=bash disable=SC2154 # the settings come from hack/guest
# Part of hack/guest: start the virtual machine, relay its output, and end it.

children=() # processes that we started and that may still run
job=''      # folder shared with the machine; also holds sockets and the kernel log

# run_machine runs "${command[@]}" in a machine and exits with its status.
run_machine() {
	local accel
	accel=$(pick_accel)
	[[ -z $count ]] || accel=tcg,thread=single
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	new_job
	write_command >"$job/share/command"
	start_machine "$accel" "$limit"
	follow_output
	report
}

cleanup() {
	local pid
	trap '' INT TERM HUP
	for pid in "${children[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
	for pid in "${children[@]}"; do
		wait "$pid" 2>/dev/null || true
	done
	children=()
	[[ -z $job ]] || rm -rf "$job"
}

new_job() {
	job=$(mktemp -d "${TMPDIR:-/tmp}/kube-hop-guest.XXXXXX")
	mkdir "$job/share"
	cp "$parts/init.sh" "$job/share/init.sh"
	: >"$job/share/output"
	: >"$job/kernel.log"
	local release
	release=$(<"$cache/guest/kernel/release")
	printf '%s=%s\n' release "$(quote "$release")" \
		modules "$(quote "$cache/guest/kernel/lib/modules/$release")" \
		out "$(quote "$out")" net "$(quote "$net")" >"$job/share/settings"
	resident >"$job/share/resident"
}

# resident lists the files that the machine copies into its memory: the programs that tests and their subjects start again
# and again, and what these open. Each opening of a file on the shared root asks the calling machine, which is a fifth of
# the time that such a program takes to start.
resident() {
	local name path programs=() libraries
	for name in bash sh conntrack ip ipset iptables ip6tables ipvsadm modprobe nft sysctl; do
		path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$name") || continue
		programs+=("$path")
	done
	mapfile -t libraries < <(ldd "${programs[@]}" | grep -o '/[^ :]*\.so[^ :]*' | sort -u)
	printf '%s\n' "${programs[@]}" "${libraries[@]}" /etc/ld.so.cache
	for path in "${libraries[@]}"; do # what iptables loads for each kind of match and target
		[[ $path != */libxtables.so* ]] || find "${path%/*}/xtables" -name '*.so'
	done
}

# quote prints a word for any POSIX shell; bash's own printf %q may use $'...', which not every shell reads.
quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# write_command prints a bash script that runs COMMAND as it would have run here.
write_command() {
	local pair
	printf 'cd %q || exit 125\n' "$PWD"
	# busybox, because it is in the machine's memory and static: quicker to start.
	printf 'exec /run/busybox env -i PATH=%q HOME=%q LANG=%q TERM=dumb' "$PATH" "${HOME:-/root}" "${LANG:-C.UTF-8}"
	for pair in "${env[@]}" "${command[@]}"; do
		printf ' %q' "$pair"
	done
	echo
}

# start_machine ACCEL SECONDS starts the file servers and the machine, whose process is then $machine.
start_machine() {
	local accel=$1 seconds=$2 devices=()
	share host / always
	share job "$job/share" none
	[[ -z $out ]] || share out "$out" none
	# Without its boot ROM, which is in a package that we do not need.
	[[ -z $net ]] || devices+=(-netdev 'user,id=net' -device 'virtio-net-pci,netdev=net,romfile=')
	[[ -z $count ]] || devices+=(-icount shift=0)
	child qemu timeout --foreground -k 5 "$seconds" setpriv --pdeathsig KILL qemu-system-x86_64 \
		-no-user-config -nodefaults -display none -no-reboot -accel "$accel" -cpu max -smp "$cpus" \
		-m "$mem" -object "memory-backend-memfd,id=mem,size=$mem,share=on" -numa node,memdev=mem \
		-kernel "$cache/guest/kernel/vmlinuz" -initrd "$initramfs" -append "$(kernel_arguments)" \
		-serial "file:$job/kernel.log" "${devices[@]}"
	machine=${children[-1]}
}

# kernel_arguments: a panic ends qemu at once, instead of waiting for the time limit. Mitigations only cost
# time here, and a processor that the emulator leaves waiting is not locked up. The kernel boots with one processor, see
# init.sh. Addresses are not randomised: the emulator can then use again what it translated for the last process of the
# same program, which halves the time to start one.
kernel_arguments() {
	echo console=ttyS0 panic=-1 mitigations=off nowatchdog rcupdate.rcu_cpu_stall_suppress=1 \
		net.ifnames=0 maxcpus=1 norandmaps
}

# child NAME COMMAND... starts a process that does not outlive us, even if we are killed, and never reads
# our input. Its messages go to NAME.log.
child() {
	setpriv --pdeathsig TERM "${@:2}" </dev/null >"$job/$1.log" 2>&1 &
	children+=($!)
}

# share NAME DIR CACHE serves DIR to the machine, and adds the device for it to the caller's devices.
share() {
	local name=$1 dir=$2 mode=$3 socket=$job/$1.socket tries
	child "$name" "$(virtiofsd_path)" --socket-path="$socket" -o "source=$dir" -o "cache=$mode" -o sandbox=chroot -f
	for ((tries = 0; tries < 200; tries++)); do
		[[ ! -S $socket ]] || break
		kill -0 "${children[-1]}" 2>/dev/null || break
		sleep 0.05
	done
	[[ -S $socket ]] || die "the file server for $dir does not start: $(tail -n 3 "$job/$name.log")"
	devices+=(-chardev "socket,id=$name,path=$socket" -device "vhost-user-fs-pci,chardev=$name,tag=$name")
}

# follow_output copies the command's output until the machine has ended, or until nobody reads it any more.
follow_output() {
	tail -c +1 -s 0.1 --pid="$machine" -f "$job/share/output" &
	children+=($!)
	wait "${children[-1]}" || exit 141 # as if SIGPIPE had ended us
}

# report exits as COMMAND did, or says why there is no status to pass on.
report() {
	local ended=0 status=''
	wait "$machine" || ended=$?
	[[ ! -e $job/share/status ]] || status=$(<"$job/share/status")
	[[ ! $status =~ ^[0-9]+$ ]] || exit "$status"
	cp "$job/kernel.log" "$cache/guest/kernel.log"
	tail -n 50 "$job/kernel.log" | tr -d '\r' >&2
	cat "$job/qemu.log" >&2
	say "above: the end of the kernel log; all of it: $cache/guest/kernel.log"
	if ((ended == EXIT_TIMEOUT)); then
		say "no result after $limit seconds: the machine was ended"
		exit "$EXIT_TIMEOUT"
	fi
	! grep -q 'Kernel panic' "$job/kernel.log" || die "the machine's kernel panicked"
	[[ $status != lost ]] || die "part of the output was lost; is the disk full?"
	die "the machine ended without a result (qemu's status: $ended)"
}

# pick_accel prints how to run the machine. That /dev/kvm exists does not mean that a kernel boots with it,
# so it is tried once for each kernel of this machine.
pick_accel() {
	local known
	known=$cache/guest/accel-$(uname -r)
	if [[ ! -e $known ]]; then
		try_kvm >"$known.tmp.$$"
		mv "$known.tmp.$$" "$known"
	fi
	cat "$known"
}

try_kvm() {
	local tcg=tcg,thread=multi
	[[ -r /dev/kvm && -w /dev/kvm ]] || { echo "$tcg" && return; }
	say "trying whether KVM works"
	if (
		trap cleanup EXIT
		mem=512M cpus=2 out='' net='' count='' env=() command=(true)
		new_job
		write_command >"$job/share/command"
		start_machine kvm 15
		wait "$machine" || true
		[[ $(cat "$job/share/status") == 0 ]]
	) 2>/dev/null; then
		echo kvm
	else
		say "KVM does not work here: emulating"
		echo "$tcg"
	fi
}
