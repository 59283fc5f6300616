mkdir lib spool proc lock socket
for user in @USERS@; do
	echo @PASSWORD@ | in_root saslpasswd2 -c -p -f /inst/sasldb2 -u popgate.test "$user"
done
chown -R 20001:8 lib spool proc lock socket sasldb2
in_root cyrmaster -D -C /inst/imapd.conf -M /inst/cyrus.conf -p /inst/master.pid
