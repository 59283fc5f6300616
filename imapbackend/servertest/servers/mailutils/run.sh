mkdir -m 755 home
mkdir -m 1777 spool
id=20100
for user in @USERS@; do
	id=$((id + 1))
	mkdir "home/$user"
	touch "spool/$user"
	chown $id:8 "home/$user" "spool/$user"
done
chmod 600 key.pem
in_root imap4d --config-file=/inst/imap4d.conf
