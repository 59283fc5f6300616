#!/bin/sh
# The upstream of the benchmark: a private Dovecot. Its own POP3 on the same
# mail is what a gateway is compared with as "direct".
#
#   upstream.sh start DIR PORT   IMAP on PORT, IMAPS +1, POP3 +2, POP3S +3
#   upstream.sh stop  DIR
#   upstream.sh pid   DIR        print the root of its process tree
#
# All state is below DIR; its certificate is DIR/cert.pem. Every user exists,
# with the password "secret". user@tag has the mailbox of user, so that a seeded
# mailbox can be shown to a gateway as an account that it has not seen.
set -eu

usage() { sed -n '5,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
. "$(dirname "$0")/lib.sh"

start() {
	port=$1
	prepare mail
	cat >"$dir/dovecot.conf" <<CONF
instance_name = bench-upstream
base_dir = $dir/run
state_dir = $dir/state
log_path = $dir/dovecot.log
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <$dir/cert.pem
ssl_key = <$dir/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
first_valid_uid = 1
passdb {
  driver = static
  args = password={PLAIN}secret
}
userdb {
  driver = static
  args = uid=20000 gid=20000 home=$dir/mail/%n
}
mail_location = mdbox:~/mdbox
mail_save_crlf = yes
mdbox_rotate_size = 64M
# Sizes are stored when a message is saved: FETCH RFC822.SIZE then opens no
# message, and costs the upstream little.
mail_always_cache_fields = size.virtual size.physical
imap_max_line_length = 1M
verbose_proctitle = no
service imap-login {
  inet_listener imap {
    port = $port
  }
  inet_listener imaps {
    port = $((port + 1))
    ssl = yes
  }
  service_count = 0
  process_min_avail = 2
  process_limit = 4
  client_limit = 12000
}
# With a process for each session every login would wake all of them.
service imap {
  service_count = 1000
  process_min_avail = 4
  client_limit = 200
  process_limit = 6000
}
$(services $((port + 2)))
CONF
	launch
	echo "upstream: IMAP 127.0.0.1:$port, IMAPS :$((port + 1)), POP3 :$((port + 2)), POP3S :$((port + 3)), process $(cat "$pidfile")" >&2
}

case $action in
start) [ $# -eq 3 ] || usage; start "$3" ;;
stop) stop ;;
pid) alive && cat "$pidfile" ;;
*) usage ;;
esac
