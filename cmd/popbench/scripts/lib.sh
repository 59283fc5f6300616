# Shared by upstream.sh and peer.sh: the life of one private Dovecot in $dir.

pidfile=$dir/run/master.pid

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

alive() { [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; }

stop() {
	alive || return 0
	pid=$(cat "$pidfile")
	kill "$pid"
	i=0
	while kill -0 "$pid" 2>/dev/null; do
		i=$((i + 1))
		[ $i -lt 600 ] || fail "dovecot, process $pid, does not stop"
		sleep 0.1
	done
}

# requirements reports what is missing, more clearly than Dovecot would.
requirements() {
	[ "$(id -u)" = 0 ] || fail "must run as root: Dovecot changes to the users of its processes and of the mail"
	command -v dovecot >/dev/null && [ -e /usr/lib/dovecot/pop3 ] ||
		fail "Dovecot is missing: apt-get install --no-install-recommends dovecot-imapd dovecot-pop3d"
	command -v openssl >/dev/null || fail "openssl is missing: apt-get install openssl"
	case $(dovecot --version) in
	2.3.*) ;;
	*) fail "needs Dovecot 2.3, as in Debian 12; other versions have another configuration" ;;
	esac
}

# prepare makes directories below $dir that belong to the mail user, which must
# be able to reach them.
prepare() {
	requirements
	! alive || fail "already running in $dir"
	chmod 711 "$dir"
	at=$dir
	while [ "$at" != / ]; do
		at=$(dirname "$at")
		[ -n "$(find "$at" -maxdepth 0 -perm -o=x)" ] ||
			fail "the mail user cannot enter $at: choose another WORK directory"
	done
	mkdir -p "$dir/run" "$dir/state"
	for sub in "$@"; do
		mkdir -p "$dir/$sub"
		chown 20000:20000 "$dir/$sub"
	done
	[ -s "$dir/cert.pem" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
		-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
		-keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
}

launch() {
	dovecot -c "$dir/dovecot.conf"
	i=0
	until alive; do
		i=$((i + 1))
		[ $i -lt 50 ] || fail "dovecot did not start, see $dir/dovecot.log"
		sleep 0.1
	done
}

# services PORT: print what the configurations of both have in common, with POP3
# on PORT and POP3S on the next one.
services() {
	cat <<CONF
mail_fsync = never
mail_max_userip_connections = 0
pop3_no_flag_updates = yes
pop3_fast_size_lookups = yes
shutdown_clients = yes
default_vsz_limit = 2G
service anvil {
  client_limit = 16000
  # No delays after failed logins: all clients have one address.
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  client_limit = 16000
}
service auth {
  client_limit = 16000
}
service pop3-login {
  inet_listener pop3 {
    port = $1
  }
  inet_listener pop3s {
    port = $(($1 + 1))
    ssl = yes
  }
  service_count = 0
  process_min_avail = 2
  process_limit = 4
  client_limit = 12000
}
service pop3 {
  service_count = 1000
  process_min_avail = 8
  client_limit = 1
  idle_kill = 5s
  process_limit = 6000
}
CONF
}
