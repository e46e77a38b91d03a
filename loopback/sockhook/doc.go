// Package sockhook is [loopback.Table] in the kernel: BPF programs on the root cgroup that replace the destination of
// a socket, and the map that they look it up in.
//
// Programs of a cgroup see the sockets of every network namespace, so each program asks for the cookie of the one that
// the table was opened in. Programs and maps are pinned in a folder that is named after that cookie: they outlive the
// daemon, a daemon that starts takes them over in place, and the daemons of several namespaces do not meet.
package sockhook
