#!/bin/bash
# Checks hack/guest itself: that the machine has what the tests need, and that results come back intact.
# Usage: hack/guest.d/smoke_test.sh    (about half a minute; "inside" is for its own use in the machine)
set -euo pipefail
self=$(readlink -f "${BASH_SOURCE[0]}")
guest=${self%/*/*}/guest

fail() {
	echo "smoke test: FAILED: $*" >&2
	exit 1
}

# expect TEXT COMMAND... fails unless the output of COMMAND contains TEXT.
expect() {
	local text=$1 output
	shift
	output=$("$@" 2>&1) || fail "$*: status $?: $output"
	[[ $output == *"$text"* ]] || fail "$*: no \"$text\" in: $output"
}

inside() {
	ipvsadm -A -t 10.0.0.1:80 -s rr
	ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m
	expect '10.0.0.2:8080' ipvsadm -Ln
	ipset create ports hash:ip,port
	ipset add ports 10.0.0.1,tcp:80
	iptables -A INPUT -m set --match-set ports dst,dst -m comment --comment 'one rule' -j ACCEPT
	expect 'match-set ports dst,dst' iptables -S INPUT
	iptables -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
	ip link add d0 type dummy
	ip link add v0 type veth peer name v1
	ip link add b0 type bridge
	ip netns add n0
	expect 'Conns' ip netns exec n0 cat /proc/net/ip_vs_stats
	(($(stat -f -c '%b-%f' /) > 0)) || fail "no program is in the machine's memory"
	[[ $SMOKE == 'a b' ]] || fail "--env: $SMOKE"
	expect 'LOOPBACK,UP' ip link show lo
	[[ ! -e $SMOKE_HOST/written ]] || fail "$SMOKE_HOST is not clean"
	echo x >"$SMOKE_HOST/written" # must vanish
	echo y >"$SMOKE_OUT/written"  # must stay
	expect "$guest" "$guest" exec -- ls "$guest"
}

main() {
	local started=$SECONDS status=0
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	"$guest" setup
	"$guest" run --out "$work/out" --env 'SMOKE=a b' --env "SMOKE_HOST=$work" --env "SMOKE_OUT=$work/out" \
		-- "$self" inside || fail "status $? from inside"
	[[ ! -e $work/written ]] || fail "the machine wrote to this machine's root"
	[[ $(<"$work/out/written") == y ]] || fail "--out did not bring the file back"
	echo "smoke test: the machine has what is needed ($((SECONDS - started)) s)"

	# Random bytes hold every control character that a terminal would change.
	head -c 5000000 /dev/urandom >"$work/random"
	# shellcheck disable=SC2016 # meant for the inner shell
	"$guest" run -- /bin/sh -c 'cat "$1"; exit 7' sh "$work/random" >"$work/back" || status=$?
	((status == 7)) || fail "status $status instead of 7"
	cmp "$work/random" "$work/back" || fail "the output was altered"
	echo "smoke test: 5 MB of output and status 7 came back ($((SECONDS - started)) s)"
}

if [[ ${1:-} == inside ]]; then inside; else main; fi
