#!/bin/bash
# Prepares what package servertest runs and what is slow to get: programs of
# Debian packages, unpacked beside the system and not installed, programs built
# from Go modules, an npm package. Each part is made once, and again only when
# its recipe or its inputs change.
#
# The directory is $POPGATE_SERVERS, or popgate-servers in the user's cache.
set -euo pipefail

inputs=$(cd "$(dirname "$0")" && pwd)/testdata
cache=${POPGATE_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/popgate-servers}

missing() {
	echo "servers: $1" >&2
	exit 1
}

requirements() {
	[ "$(id -u)" -eq 0 ] || missing "root is missing: the servers run in namespaces, and under users, of their own"
	grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release || missing "Debian 12 is missing: the servers are those of its packages"
	local program
	for program in apt-get go gcc node npm; do
		command -v "$program" >/dev/null || missing "$program is missing (make deps installs it on Debian, except for Go)"
	done
}

# attempt NAME: runs make_NAME in a new directory. errexit has no effect where the
# status is looked at, so that it is a shell of its own.
attempt() {
	rm -rf "$1.new"
	mkdir -p "$1.new"
	bash -c 'set -euo pipefail; "$@"' - "make_$1" "$cache/$1.new" >"$1.log" 2>&1
}

# part NAME [INPUT]: has make_NAME fill the directory NAME of the cache, unless
# it has done so with the same recipe and the same files below testdata/INPUT.
part() {
	local name=$1 input=${2:-} stamp start=$SECONDS
	stamp=$({
		declare -f "make_$name"
		[ -z "$input" ] || find "$inputs/$input" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat
	} | sha256sum)
	if [ "$(cat "$name/.made" 2>/dev/null)" = "$stamp" ]; then
		return
	fi
	echo "servers: making $name"
	attempt "$name" || {
		echo "servers: making $name failed; again, in case it was the network" >&2
		attempt "$name"
	} || {
		tail -n 20 "$name.log" >&2
		missing "making $name failed twice; all it printed is in $cache/$name.log"
	}
	echo "$stamp" >"$name.new/.made"
	rm -rf "$name"
	mv "$name.new" "$name"
	echo "servers: made $name in $((SECONDS - start)) s"
}

# One root directory for the programs of all Debian packages. apt resolves each
# line by itself, since some packages exclude each other.
make_debian() {
	local root=$1/root debs=$1/debs
	mkdir -p "$debs/partial" "$root"/usr/{bin,sbin,lib,lib64} "$root"/{inst,proc,dev,etc}
	ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
	: >"$1/status"
	local options=(-q -y --no-install-recommends --download-only -o APT::Sandbox::User=root
		-o Dir::State::status="$1/status" -o Dir::Cache::archives="$debs")
	apt-get -q update
	while read -r packages; do
		# shellcheck disable=SC2086
		apt-get "${options[@]}" install $packages </dev/null
	done <<-'EOF'
		cyrus-imapd sasl2-bin libsasl2-modules libsasl2-modules-db
		courier-imap courier-authlib-userdb
		mailutils-imap4d
		nginx libnginx-mod-mail
		perdition
		imapproxy
	EOF
	local deb
	for deb in "$debs"/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root" \
			--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
		dpkg-deb -f "$deb" Package Version | sed 's/.*: //' | paste -s -d ' ' >>"$1/versions"
	done
	rm -rf "$debs" "$1/status"
	# What a server reads or writes at a place compiled into it is its own: the
	# directory of one instance is mounted at /inst.
	local own
	mv "$root/etc/courier" "$root/etc/courier.dist"
	rm -rf "$root"/{run,tmp,var/run,etc/passwd,etc/group,etc/shadow}
	for own in etc/courier etc/passwd etc/group etc/shadow run tmp; do
		ln -s "/inst/$own" "$root/$own"
	done
	ln -s /inst/run "$root/var/run"
	ln -s /inst/syslog "$root/dev/log"
	touch "$root"/dev/{null,zero,random,urandom}
	printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\n' >"$root/etc/nsswitch.conf"
	printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
}

# Building takes more time than the programs run: gcc needs eight times as long
# for SQLite with optimisation. Both modules have the same version of it, which
# is compiled once.
make_mox() {
	cd "$inputs/mox"
	go build -ldflags=-w -o "$1/mox" github.com/mjl-/mox
	go_versions "$1"/*
}

make_maddy() {
	cd "$inputs/maddy"
	CGO_CFLAGS=-O0 go build -ldflags=-w -tags libdns_separate -o "$1/maddy" github.com/foxcpp/maddy/cmd/maddy
	go_versions "$1"/*
}

make_goservers() {
	cd "$inputs/goservers"
	CGO_CFLAGS=-O0 go build -ldflags=-w -o "$1/" ./...
	go_versions "$1"/*
}

# go_versions PROGRAM...: the modules that the programs are built from.
go_versions() {
	go version -m "$@" | awk '$1 == "mod" || $1 == "dep" { print $2, $3 }' >"$1.versions"
	mv "$1.versions" "$(dirname "$1")/versions"
}

make_hoodiecrow() {
	cp "$inputs"/hoodiecrow/* "$1"
	cd "$1"
	npm ci --ignore-scripts --no-audit --no-fund
	node -p '"hoodiecrow-imap " + require("./node_modules/hoodiecrow-imap/package.json").version' >versions
}

requirements
export inputs cache
export -f go_versions make_debian make_goservers make_hoodiecrow make_mox make_maddy
mkdir -p "$cache"
cd "$cache"
exec 9>lock
flock 9
part debian
part goservers goservers
part hoodiecrow hoodiecrow
part mox mox
part maddy maddy
echo "servers: all there after $SECONDS s, in $cache"
