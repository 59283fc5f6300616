#!/bin/sh
# Measures popgate, Dovecot over imapc (the peer) and Dovecot's own POP3
# (direct) side by side on 127.0.0.1, and ends with one table.
#
#   bench.sh
#
# Environment:
#   STAGES   of "quick base big idle tls kept rtt20 rtt80 slow", or all, which
#            leaves out quick (default: quick)
#   ROUNDS   rounds of base and kept (default: 3)
#   WORK     directory for the mail, kept for the next run (default: temporary)
#   OUT      directory for the results (default: bin/bench)
#   POPGATE, POPBENCH   the programs (default: bin/popgate, bin/popbench)
#
# For each part of a stage, NAME.json and NAME.md with all figures are written to
# OUT, and table.md at the end. The exit status is 1 if a server gave a wrong
# answer; a missed target is not a failure.
set -eu

stages=${STAGES:-quick}
[ "$stages" != all ] || stages="base big idle tls kept rtt20 rtt80 slow"
for s in $stages; do
	case $s in
	quick | base | big | idle | tls | kept | rtt20 | rtt80 | slow) ;;
	*) sed -n '5,17s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
done
scripts=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$scripts/../../.." && pwd)
popgate=${POPGATE:-$root/bin/popgate}
popbench=${POPBENCH:-$root/bin/popbench}
out=${OUT:-$root/bin/bench}
[ "$(id -u)" = 0 ] || { echo "bench.sh: must run as root: Dovecot changes to the users of its processes and of the mail" >&2; exit 1; }

# Descriptors of 5,000 sessions: two for each in the gateway.
ulimit -n 16384 2>/dev/null || { echo "bench.sh: needs 16384 open files: raise the limit (ulimit -Hn)" >&2; exit 1; }

temporary=
[ "${WORK:-}" ] || { temporary=$(mktemp -d); WORK=$temporary; }
mkdir -p "$WORK" "$out"
work=$(cd "$WORK" && pwd)
out=$(cd "$out" && pwd)
chmod 711 "$work"
port=$("$popbench" ports --count 16)
upstream=127.0.0.1:$port
children= # processes of the part in progress
running=  # the popbench in the foreground
reports=
status=0

say() { echo "$(date +%T) $*" >&2; }

stop_gateways() {
	"$scripts/peer.sh" stop "$work/warm"
	"$scripts/peer.sh" stop "$work/cold"
	for child in $running $children; do
		kill "$child" 2>/dev/null && wait "$child" 2>/dev/null || true
	done
	children= running=
}
cleanup() {
	trap '' INT TERM
	stop_gateways
	"$scripts/upstream.sh" stop "$work/up"
	[ -z "$temporary" ] || rm -rf "$temporary"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# watched COMMAND...: run it so that a signal to this script ends it too.
watched() {
	"$@" &
	running=$!
	code=0
	wait $running || code=$?
	running=
	return $code
}

rate=0 # octets a second from the upstream; 0: no limit

# delay MS: forward port +4 to IMAP and port +5 to IMAPS.
delay() {
	for i in 0 1; do
		"$popbench" delay --listen 127.0.0.1:$((port + 4 + i)) --to 127.0.0.1:$((port + i)) --rtt "$1ms" --rate "$rate" &
		children="$children $!"
	done
}

# configure VARIANT IMAPPORT: write popgate's configuration, the shortest one
# for plain connections.
configure() {
	case $1 in
	tls)
		cat <<CONF
[[listener]]
address = "127.0.0.1:$((port + 10))"
tls = "implicit"
cert_file = "$work/up/cert.pem"
key_file = "$work/up/key.pem"

[[upstream]]
address = "127.0.0.1:$2"
ca_file = "$work/up/cert.pem"
CONF
		;;
	*)
		cat <<CONF
[[listener]]
address = "127.0.0.1:$((port + 10))"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]

[[upstream]]
address = "127.0.0.1:$2"
tls = "none"
CONF
		[ "$1" != kept ] || echo 'keep_open = "60s"'
		;;
	esac
	printf '\n[log]\nlevel = "warn"\n'
}

# part NAME MS VARIANT "GATEWAYS" SCENARIOS FLAGS...: start what is compared, MS
# milliseconds away from the upstream, and measure it. VARIANT is plain, tls or
# kept, GATEWAYS are of direct, warm, cold and popgate.
part() {
	name=$1 ms=$2 variant=$3 gateways=$4 scenarios=$5
	shift 5
	say "part $name: $scenarios"
	imap=$port tls= secure=0
	[ "$variant" != tls ] || { imap=$((port + 1)); tls=tls secure=1; }
	[ "$ms" = 0 ] || { delay "$ms"; imap=$((imap + 4)); }
	set -- "$@" --rtt "${ms}ms" --imap "$upstream" --upstream-pid "$uppid" --scenarios "$scenarios"
	[ "$variant" = plain ] || set -- "$@" --variant "$variant"
	[ "$secure" = 1 ] || set -- "$@" --copy-from 127.0.0.1:$imap
	for gateway in $gateways; do
		case $gateway in
		direct)
			at=$((port + 2)) pid=$uppid
			;;
		warm | cold)
			at=$((port + 6))
			[ $gateway = warm ] || at=$((port + 8))
			"$scripts/peer.sh" start "$work/$gateway" $at $imap $gateway $tls
			pid=$("$scripts/peer.sh" pid "$work/$gateway")
			;;
		popgate)
			at=$((port + 10 - secure))
			configure "$variant" $imap >"$work/$name.toml"
			"$popgate" serve --config "$work/$name.toml" 2>>"$out/popgate.log" &
			pid=$!
			children="$children $pid"
			;;
		esac
		set -- "$@" "$gateway=127.0.0.1:$((at + secure)),pid=$pid${tls:+,tls}"
	done
	watched "$popbench" run --json "$out/$name.json" "$@" >"$out/$name.md" || status=1
	stop_gateways
	reports="$reports $out/$name.json"
}

# fill_indexes: the first listing of the warm peer takes a round trip for each
# message. Only list measures that; for the other scenarios it is done here.
fill_indexes() {
	say "filling the indexes of the peer"
	"$scripts/peer.sh" start "$work/warm" $((port + 6)) "$port" warm
	watched "$popbench" run --cap 1ms --duration 1ms --users "$1" --scenarios "$2" \
		warm=127.0.0.1:$((port + 6)) >/dev/null || status=1
	stop_gateways
}

# delayed MS: the stages rtt20 and rtt80.
delayed() {
	slow="--rounds 1 --cap 10s --users 64 --timeout 180s --repeat 1"
	fill_indexes 64 retr,top,poll
	# shellcheck disable=SC2086
	{
		# A first listing by the peer takes a thousand round trips, two
		# thousand with cold: it is measured at 20 ms only.
		if [ "$1" = 20 ]; then
			part "rtt$1" "$1" plain "warm cold popgate" login.c1,login.c64,poll,list.1k $slow
		else
			part "rtt$1" "$1" plain "warm popgate" login.c1,login.c64,poll $slow
			part "rtt$1-list" "$1" plain "popgate" list.1k $slow
		fi
		part "rtt$1-data" "$1" plain "warm popgate" retr,top,huge $slow
		# The peer would take minutes to find the sizes first.
		part "rtt$1-dele" "$1" plain "popgate" dele $slow
		part "rtt$1-tls" "$1" tls "warm popgate" login.c1 $slow
		! keeps || part "rtt$1-kept" "$1" kept "popgate" login.c1 $slow
	}
}

# keeps reports whether this popgate can keep upstream connections.
keeps() {
	configure kept "$port" >"$work/kept.toml"
	"$popgate" check --config "$work/kept.toml" >/dev/null 2>&1 || [ $? -ne 2 ] || {
		say "this popgate does not know keep_open: left out"
		return 1
	}
}

stage() {
	rounds="--rounds ${ROUNDS:-3}"
	every="direct warm cold popgate"
	# shellcheck disable=SC2086
	case $1 in
	quick)
		brief="--rounds 1 --duration 2s --cap 3s --users 64 --repeat 1"
		part quick 0 plain "$every" login.c1,login.c8,poll,list.1k,list.10k,retr,top,huge,dele $brief
		fill_indexes 64 retr.mix2k,top
		part quick20 20 plain "warm popgate" login.c1,list.1k,retr.mix2k,top,huge $brief
		part quick-idle 0 plain popgate idle.5000 --users 64
		part quick-tls 0 tls popgate idle.5000 --users 64
		;;
	base) part base 0 plain "$every" login,poll,list.1k,list.10k,retr,top,huge,dele,idle.1000 $rounds --cap 10s ;;
	big) part big 0 plain "$every" list.100k ;;
	idle) part idle 0 plain "direct warm popgate" idle.5000 ;;
	tls) part tls 0 tls "direct warm popgate" login.c8,idle.5000 ;;
	# Fewer accounts than the connections that a gateway keeps.
	kept) ! keeps || part kept 0 kept "direct popgate" login,poll $rounds --users 200 ;;
	rtt20) delayed 20 ;;
	rtt80) delayed 80 ;;
	# 0.5 Mbit/s.
	slow)
		rate=62500
		part slow 20 plain popgate slow --rounds 1 --timeout 180s
		rate=0
		;;
	esac
}

boxes="list1k,list10k,mix2k,small10k,huge1,u*,poll*" users=64
[ "$stages" = quick ] || users=500
case " $stages " in *" big "*) boxes=all ;; esac
: >"$out/popgate.log"
"$scripts/upstream.sh" start "$work/up" "$port"
uppid=$("$scripts/upstream.sh" pid "$work/up")
"$popbench" seed --imap "$upstream" --boxes "$boxes" --users $users
for s in $stages; do
	stage "$s"
done
[ "$reports" ] || { say "nothing was measured"; exit 1; }
# shellcheck disable=SC2086
"$popbench" table $reports >"$out/table.md"
cat "$out/table.md"
say "all figures: $out"
exit $status
