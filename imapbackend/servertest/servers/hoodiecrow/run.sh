node @CACHE@/hoodiecrow/server.js @PORT@ @TLS_PORT@ @PASSWORD@ @USERS@
