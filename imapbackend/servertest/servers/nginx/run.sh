in_root nginx -c /inst/nginx.conf -e stderr
