@CACHE@/goservers/goimap1 -listen 127.0.0.1:@PORT@ -listen-tls 127.0.0.1:@TLS_PORT@ \
	-cert cert.pem -key key.pem -dir data -password @PASSWORD@ @USERS@
