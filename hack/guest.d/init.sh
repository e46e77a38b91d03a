# shellcheck shell=dash
# Part of hack/guest: process 1 of the machine once the root is in place, run by the static busybox.
#
# /run/guest is a folder of the calling machine: "settings" and "command" come from there, "output" and
# "status" go back. Files, and not a console, because they arrive complete, in order and unaltered, and a
# reader that is slow or gone cannot block the machine.
# busybox's shell runs its own applets without looking at PATH; plain names below are those.

# shellcheck source=/dev/null disable=SC2154
. /run/guest/settings # sets release, modules, out and net

# Found by modprobe, and so by the kernel when it loads a module by itself.
mkdir -p /lib/modules
ln -sfn "$modules" "/lib/modules/$release"

# To be opened for writing is what makes the root's overlay copy a file into the machine's memory. Nothing runs them yet;
# and true, since after a failed redirection of : the shell, process 1, would end.
while read -r file; do
	true >>"$file" || echo "guest: $file stays on the shared root" >/dev/kmsg
done </run/guest/resident

echo 1 >/proc/sys/net/ipv4/ip_forward
hostname guest
ip link set lo up
mount --make-rshared /
if [ -n "$out" ]; then
	mkdir -p "$out"
	mount -t virtiofs out "$out"
fi
if [ -n "$net" ]; then
	modprobe virtio_net
	ip link set eth0 up
	ip addr add 10.0.2.15/24 dev eth0
	ip route add default via 10.0.2.2
	rm -f /etc/resolv.conf
	echo "nameserver 10.0.2.3" >/etc/resolv.conf
fi
modprobe -a ip_vs br_netfilter # nothing else loads br_netfilter

# The kernel patches its own code while it boots, when the first netfilter hook of a kind is registered and when the last
# one goes. Under emulation a second processor can still run the half-patched code, and the kernel then panics (int3 in
# __ip_local_out, and sched_clock_cpu at boot, were seen). Hooks that stay for good keep the tests' hooks from ever being
# the first or last, and the other processors come last.
/usr/sbin/nft -f - <<-'RULES' || echo "guest: no netfilter hooks are held" >/dev/kmsg
	table inet guest {
		chain prerouting { type filter hook prerouting priority 1000; }
		chain input { type filter hook input priority 1000; }
		chain forward { type filter hook forward priority 1000; }
		chain output { type filter hook output priority 1000; }
		chain postrouting { type filter hook postrouting priority 1000; }
	}
RULES

for processor in /sys/devices/system/cpu/cpu[1-9]*/online; do
	[ ! -e "$processor" ] || echo 1 >"$processor" || echo "guest: $processor cannot be set" >/dev/kmsg
done

mkfifo /run/output
cat /run/output >>/run/guest/output &
relay=$!
echo "guest: command starts" >/dev/kmsg
setsid /bin/bash /run/guest/command </dev/null >/run/output 2>&1 &
wait $!
status=$?
echo "guest: command ended with status $status" >/dev/kmsg

# What COMMAND left running would keep the pipe open for ever. Twice, for what forked meanwhile.
for _ in 1 2; do
	for process in /proc/[0-9]*; do
		process=${process#/proc/}
		[ "$process" = 1 ] || [ "$process" = "$relay" ] || kill -9 "$process" 2>/dev/null
	done
done
wait "$relay" || status=lost
echo "$status" >/run/guest/status.tmp
mv /run/guest/status.tmp /run/guest/status # the caller must never see half a status
[ -z "$out" ] || umount "$out" || sync
poweroff -f
