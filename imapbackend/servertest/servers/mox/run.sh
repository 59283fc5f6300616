PATH=$PATH:@CACHE@/mox
mkdir config
mv mox.conf domains.conf config
for user in @USERS@; do
	printf '\t%s:\n\t\tDomain: localhost\n\t\tDestinations:\n\t\t\t%s@localhost: nil\n' "$user" "$user"
done >>config/domains.conf
echo unused >config/adminpasswd

# Passwords are set through a running server, which has no listener then.
mox localserve -dir config &
setup=$!
for user in @USERS@; do
	until echo @PASSWORD@ | mox -config config/mox.conf setaccountpassword "$user" >/dev/null; do
		sleep 0.1
	done
done
kill -KILL $setup
wait $setup || :
cat listeners.conf >>config/mox.conf
mox localserve -dir config
