in_root imapproxyd -f /inst/imapproxy.conf -p /inst/imapproxy.pid
