#!/bin/busybox sh
# shellcheck shell=dash
# Part of hack/guest: the first process of the machine. Makes the root file system and hands over to init.sh.
# Only the static busybox is used here: starting a program from the shared root costs 0.1 s and more.
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /host /rw /root
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do
	insmod "/$module"
done </modules
mount -t virtiofs -o ro host /host
mount -t tmpfs -o mode=755 tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work overlay /root

cd /root
mkdir -p proc sys dev run tmp
umount /proc
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --move /dev dev
mkdir -p dev/pts dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -sf /proc/self/fd dev/fd
ln -sf /proc/self/fd/0 dev/stdin
ln -sf /proc/self/fd/1 dev/stdout
ln -sf /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=755 tmpfs run
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mkdir -p run/lock run/guest
mount -t virtiofs job run/guest
cp -a /bin/busybox run/busybox
exec switch_root /root /run/busybox sh /run/guest/init.sh
