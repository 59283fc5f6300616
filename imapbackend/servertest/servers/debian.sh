# In front of run.sh of a server from Debian packages: its root directory, in
# which the directory of this instance is /inst.
mount --make-rprivate /
mount --bind @DIR@ @ROOT@/inst
mount -t proc proc @ROOT@/proc
for device in null zero random urandom; do
	mount --bind /dev/$device @ROOT@/dev/$device
done
in_root() { chroot @ROOT@ "$@"; }

mkdir -m 755 etc etc/courier run
mkdir -m 1777 tmp
chmod 644 cert.pem key.pem ca.pem
id=20100
{
	echo root:x:0:0::/:/bin/sh
	echo daemon:x:1:1::/:/bin/false
	echo mail:x:8:8::/:/bin/false
	echo cyrus:x:20001:8::/:/bin/false
	echo courier:x:20002:20002::/:/bin/false
	echo nobody:x:65534:65534::/:/bin/false
	for user in @USERS@; do
		id=$((id + 1))
		echo "$user:x:$id:8::/inst/home/$user:/bin/false"
	done
} >etc/passwd
printf '%s\n' root:x:0: daemon:x:1: mail:x:8: courier:x:20002: nogroup:x:65534: >etc/group
for user in @USERS@; do
	echo "$user":'@CRYPT@:19000:0:99999:7:::'
done >etc/shadow
