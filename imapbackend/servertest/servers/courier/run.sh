cp @ROOT@/etc/courier.dist/imapd @ROOT@/etc/courier.dist/imapd-ssl authdaemonrc etc/courier
mkdir -p run/courier/authdaemon
chown -R 20002:20002 run/courier
(
	umask 077
	id=20100
	for user in @USERS@; do
		id=$((id + 1))
		mkdir -p "home/$user/Maildir/cur" "home/$user/Maildir/new" "home/$user/Maildir/tmp"
		chown -R $id:8 "home/$user"
		printf '%s\tuid=%d|gid=8|home=/inst/home/%s|systempw=%s\n' "$user" $id "$user" '@CRYPT@'
	done >etc/courier/userdb
	cat key.pem cert.pem >both.pem
	chown 20002 both.pem
)
chmod 755 home
in_root makeuserdb
in_root /usr/lib/courier/courier-authlib/authdaemond &
set -- @USERS@
until in_root authtest "$1" >/dev/null 2>&1; do
	sleep 0.1
done

# As /usr/lib/courier/imapd and imapd-ssl do it.
set -a
. ./etc/courier/imapd-ssl
. ./etc/courier/imapd
TLS_CERTFILE=/inst/both.pem
IMAP_STARTTLS=YES
IMAP_TLS=0
listen() { in_root couriertcpd -address=127.0.0.1 -maxprocs=400 -maxperip=400 -nodnslookup -noidentlookup "$@"; }
(
	IMAP_STARTTLS=NO
	IMAP_TLS=1
	listen @TLS_PORT@ /usr/bin/couriertls -server -tcpd \
		/usr/lib/courier/courier/imaplogin /usr/bin/imapd Maildir
) &
listen @PORT@ /usr/lib/courier/courier/imaplogin /usr/bin/imapd Maildir
