#!/bin/sh
# The peer: Dovecot as a POP3-to-IMAP gateway, POP3 over its imapc storage.
#
#   peer.sh start DIR POP3PORT IMAPPORT VARIANT [tls]
#   peer.sh stop  DIR
#   peer.sh pid   DIR    print the root of its process tree
#
# It serves POP3 on POP3PORT and POP3S on POP3PORT+1. VARIANT is warm (indexes
# and cache are kept below DIR) or cold (none). With tls, IMAPPORT is IMAPS.
#
# Any password is accepted here, and the upstream's LOGIN decides: that is faster
# than to verify it twice. Sizes come from RFC822.SIZE, as the documentation of
# imapc recommends for proxies, and processes are reused.
set -eu

usage() { sed -n '4,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
. "$(dirname "$0")/lib.sh"

start() {
	port=$1
	imap=$2
	case $3 in
	warm) location="imapc:~/imapc" ;;
	cold) location="imapc:~/imapc:INDEX=MEMORY" ;;
	*) usage ;;
	esac
	case ${4:-} in
	tls) ssl=imaps ;;
	'') ssl=no ;;
	*) usage ;;
	esac
	prepare index
	cat >"$dir/dovecot.conf" <<CONF
instance_name = bench-peer
base_dir = $dir/run
state_dir = $dir/state
log_path = $dir/dovecot.log
protocols = pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <$dir/cert.pem
ssl_key = <$dir/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain
auth_cache_size = 0
login_trusted_networks = 127.0.0.1
first_valid_uid = 1
passdb {
  driver = static
  args = nopassword=y userdb_imapc_user=%u userdb_imapc_password=%w
}
userdb {
  driver = prefetch
}
userdb {
  driver = static
  args = uid=20000 gid=20000 home=$dir/index/%u
}
mail_uid = 20000
mail_gid = 20000
mail_home = $dir/index/%u
mail_location = $location
imapc_host = 127.0.0.1
imapc_port = $imap
imapc_ssl = $ssl
imapc_ssl_verify = no
imapc_features = rfc822.size fetch-headers
mail_always_cache_fields = size.virtual size.physical
mail_prefetch_count = 20
mailbox_list_index = no
pop3_lock_session = no
$(services $port)
CONF
	launch
	echo "peer, $3: POP3 127.0.0.1:$port, POP3S :$((port + 1)), to IMAP :$imap, process $(cat "$pidfile")" >&2
}

case $action in
start) [ $# -ge 5 ] || usage; start "$3" "$4" "$5" "${6:-}" ;;
stop) stop ;;
pid) alive && cat "$pidfile" ;;
*) usage ;;
esac
