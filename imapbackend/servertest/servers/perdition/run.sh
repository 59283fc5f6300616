: >perdition.conf
cat cert.pem dh.pem >both.pem # ffdhe2048 of RFC 7919: there is no TLS without
proxy() {
	in_root perdition --no_daemon --config_file /inst/perdition.conf --map_library '' --pid_file '' \
		--bind_address 127.0.0.1 --outgoing_server 127.0.0.1 --outgoing_port @UPSTREAM_PORT@ "$@"
}
proxy --protocol IMAP4 --ssl_mode ssl_listen --listen_port @TLS_PORT@ \
	--ssl_cert_file /inst/both.pem --ssl_key_file /inst/key.pem &
proxy --protocol IMAP4 --listen_port @PORT@
