for user in @USERS@; do
	echo "$user@popgate.test:" 'bcrypt:@BCRYPT@'
done >passwords
@CACHE@/maddy/maddy -config maddy.conf run
