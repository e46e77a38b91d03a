# shellcheck shell=bash disable=SC2154,SC2034 # some settings come from hack/guest, some go to its other parts
# Part of hack/guest: what has to be on this machine before the virtual machine can start.
#
# Everything downloaded ends up in $cache/guest, complete or not at all:
#   kernel/vmlinuz, kernel/lib/modules/RELEASE   unpacked, never installed
#   kernel/release                               RELEASE, as uname -r prints it in the machine
#   kernel/busybox                               the static one; its package would conflict with plain busybox
#   kernel/initramfs-SUM                         SUM is that of the init script: each version has its own

packages=(qemu-system-x86 qemu-system-common kmod xz-utils cpio iproute2 iptables ipset ipvsadm
	conntrack nftables procps)

# setup makes everything ready. The checks are cheap, so that "run" can call it every time.
setup() {
	((EUID == 0)) || die "must be root (to install packages, and to share the file system with the machine)"
	[[ $(uname -m) == x86_64 ]] || die "only x86-64 is supported, this is $(uname -m)"
	mkdir -p "$cache/guest"
	cache=$(readlink -f "$cache")
	initramfs=$cache/guest/kernel/initramfs-$(cksum <"$parts/initramfs_init.sh" | tr ' ' '-')
	is_set_up && return
	(
		flock -n 9 || { say "waiting for another setup" && flock 9; }
		rm -rf "$cache"/guest/tmp.* # of a setup that was killed: we hold the lock
		install_packages
		fetch_kernel
		build_initramfs
	) 9>"$cache/guest/lock"
}

is_set_up() { [[ -e $initramfs && -z $(missing_packages) ]]; }

missing_packages() {
	local status
	# dpkg-query fails when it knows nothing of a package; the answer for the others is still right.
	status=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null) || true
	comm -23 <(printf '%s installed\n' "${packages[@]}" | sort) <(sort <<<"$status") | cut -d' ' -f1
	# From Debian 13 on the file server has a package of its own.
	[[ -n $(virtiofsd_path) || $status != *'qemu-system-common installed'* ]] || echo virtiofsd
}

virtiofsd_path() {
	local path
	for path in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd; do
		[[ ! -x $path ]] || { echo "$path" && return; }
	done
}

install_packages() {
	local missing round
	# Twice, because only after the first round it is known whether virtiofsd came with qemu.
	for round in first second; do
		mapfile -t missing < <(missing_packages)
		((${#missing[@]})) || return 0
		say "installing ${missing[*]}"
		with_fresh_lists apt_get install -y --no-install-recommends "${missing[@]}" ||
			die "apt-get could not install ${missing[*]}"
	done
}

apt_get() {
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root "$@" \
		</dev/null >"$cache/guest/apt.log" 2>&1
}

# with_fresh_lists runs a command that needs apt's package lists, which a new machine lacks and an old one
# may have outdated: if it fails, once more after an update.
with_fresh_lists() {
	"$@" && return
	say "updating the package lists"
	apt_get update || say "apt-get update: $(tail -n 1 "$cache/guest/apt.log")"
	"$@" && return
	tail -n 5 "$cache/guest/apt.log" >&2
	return 1
}

fetch_kernel() {
	local work package=''
	[[ ! -e $cache/guest/kernel ]] || return 0
	work=$(mktemp -d "$cache/guest/tmp.XXXXXX")
	# Old package lists may know the older kernel only, and a failed update must not keep us from using that one.
	with_fresh_lists find_new_kernel || find_old_kernel || die "no suitable kernel package"
	say "downloading $package"
	(cd "$work" && with_fresh_lists apt_get download "$package" busybox-static) ||
		die "apt-get could not download $package and busybox-static"
	say "unpacking the kernel"
	unpack_kernel "$work"
	mv -T "$work/kernel" "$cache/guest/kernel"
	rm -rf "$work"
}

# find_new_kernel sets package. Debian 12 has 6.12 as a backport, whose version is part of the name.
find_new_kernel() {
	package=$(apt-cache search --names-only '^linux-image-6\.12\..*-cloud-amd64-unsigned$' |
		cut -d' ' -f1 | sort -V | tail -n 1)
	[[ -n $package ]] || { echo "apt-cache knows no linux-image-6.12 for cloud-amd64" >"$cache/guest/apt.log" && return 1; }
}

# find_old_kernel sets package to the release's own kernel. Tests of what only newer kernels can do fail on it.
find_old_kernel() {
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | sort -V | tail -n 1)
	[[ -n $package ]]
}

unpack_kernel() {
	local work=$1 deb release
	for deb in "$work"/*.deb; do
		dpkg -x "$deb" "$work/root"
	done
	release=$(ls "$work/root/lib/modules")
	mkdir -p "$work/kernel/lib"
	mv "$work/root/lib/modules" "$work/kernel/lib/modules"
	mv "$work/root/boot/vmlinuz-$release" "$work/kernel/vmlinuz"
	mv "$work/root/bin/busybox" "$work/kernel/busybox"
	# Unpacked here once: every load in the machine would unpack again, under emulation.
	find "$work/kernel/lib/modules" -name '*.ko.xz' -print0 | xargs -0 -r -P 2 -n 50 xz -d
	depmod -b "$work/kernel" "$release"
	echo "$release" >"$work/kernel/release"
}

build_initramfs() {
	local work release load path
	[[ ! -e $initramfs ]] || return 0
	say "building the initramfs"
	release=$(<"$cache/guest/kernel/release")
	work=$(mktemp -d "$cache/guest/tmp.XXXXXX")
	mkdir -p "$work"/root/{dev,proc,bin}
	cp "$cache/guest/kernel/busybox" "$work/root/bin/busybox"
	cp "$parts/initramfs_init.sh" "$work/root/init"
	chmod 755 "$work/root/init"
	: >"$work/root/modules"
	# In the order of loading. What is a module differs: 6.12 has virtio and virtiofs built in, 6.1 has not.
	load=$(modprobe -C /dev/null -d "$cache/guest/kernel" -S "$release" --show-depends -a \
		virtio_pci virtiofs overlay) || die "the kernel lacks a module for its root file system"
	sed -n 's/^insmod \(.*[^ ]\) *$/\1/p' <<<"$load" | awk '!seen[$0]++' | while IFS= read -r path; do
		cp "$path" "$work/root/${path##*/}"
		echo "${path##*/}" >>"$work/root/modules"
	done
	# Not compressed: unpacking would cost the emulated processor more than reading three megabytes.
	(cd "$work/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs"
	mv "$work/initramfs" "$initramfs"
	rm -rf "$work"
}
