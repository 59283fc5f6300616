# make test runs everything that must pass; it installs what it needs.

SHELL := /bin/bash
GO ?= go
FUZZTIME ?= 10s
BENCHTIME ?= 1s

GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

.PHONY: all build test check unit unit-386 vuln fuzz soak mutate bench bench-compare bench-peer deps servers interop server upstreams-doc

all: build

build:
	$(GO) build -o bin/popgate ./cmd/popgate

# Everything that must pass, part by part, with the time that each one takes.
PARTS = deps build check servers unit interop unit-386

test:
	@times=$$(mktemp); trap 'rm -f $$times' EXIT; exec 3>&1 4>&2; \
	for part in $(PARTS); do \
		TIMEFORMAT="make test: $$part took %0R s (%0U + %0S s of processor time)"; \
		{ time $(MAKE) --no-print-directory $$part >&3 2>&4; } 2>>$$times && code=0 || code=$$?; \
		tail -n 1 $$times; \
		[ $$code -eq 0 ] || break; \
	done; \
	echo "make test: $$SECONDS s in all"; cat $$times; \
	[ $$code -eq 0 ] || { echo "make test: $$part failed"; exit $$code; }

# All tests but those of servertest, which make interop runs.
unit:
	$(GO) test -race -shuffle=on -tags integration -timeout 15m $$($(GO) list ./... | grep -v '/servertest$$')

# The race detector needs 64 bits.
unit-386:
	GOARCH=386 $(GO) test ./...

# What can be said without running anything, for each system that the program
# is built for.
check:
	@files=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); \
	if [ -n "$$files" ]; then echo "gofmt -w these files:"; echo "$$files"; exit 1; fi
	@$(GO) mod tidy -diff || { echo "run: go mod tidy"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags integration ./...
	GOOS=windows $(GO) vet ./...
	GOOS=darwin $(GO) vet ./...
	GOOS=freebsd $(GO) vet ./...
	GOARCH=386 $(GO) vet ./...
	$(GO) tool staticcheck -tags integration ./...

# Known vulnerabilities in what the program calls. A finding fails; a database
# that cannot be reached is said, and does not.
vuln:
	@GOBIN=$(CURDIR)/bin $(GO) install $(GOVULNCHECK)
	@out=$$(bin/govulncheck ./... 2>&1) && code=0 || code=$$?; echo "$$out"; \
	if [ $$code -ne 0 ] && grep -q 'fetching vulnerabilities' <<<"$$out"; then \
		echo "make vuln: the vulnerability database cannot be reached; nothing has been checked"; \
	else exit $$code; fi

# Each fuzz target there is, one after the other.
fuzz:
	@set -euo pipefail; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

# Nothing lost in front of a real server whose connections break, nor, in fake
# time, in front of servers that use odd but legal forms, for SOAK=1h or as long
# as wanted. make test does so for a minute, and for half a minute.
SOAK ?= 10m
soak: deps
	SOAK=$(SOAK) $(GO) test -race -tags integration -count=1 -timeout 0 -v -run '^TestSoak' ./imapbackend ./imapbackend/internal/soak

# Breaks lines of FILES on purpose and prints what no test notices: a sample of
# MUTANTS, or all with MUTANTS=0. SEED repeats a sample.
FILES ?= $(addprefix imapbackend/,fetch.go read.go readahead.go reconnect.go remove.go top.go trash.go update.go) \
	$(filter-out %_test.go,$(wildcard imapbackend/store/*.go))
MUTANTS ?= 30
SEED ?=
mutate:
	@mkdir -p bin && $(GO) build -o bin/popmutate ./cmd/popmutate
	bin/popmutate --count $(MUTANTS) $(if $(SEED),--seed $(SEED)) --also ./imapbackend $(FILES)

# What every session does most: byte-stuffing, listings, lines, RETR.
bench:
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./proxy/... ./imapbackend/...

# The same of the last release, or of BASE=REVISION, and of the work tree, in
# turns, compared by benchstat. It informs: slower is no failure.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null)

bench-compare:
	@if [ -z "$(BASE)" ]; then \
		echo "make bench-compare: there is no release to compare with yet (BASE=REVISION names another)"; exit 0; \
	fi; set -euo pipefail; \
	GOBIN=$(CURDIR)/bin $(GO) install $(BENCHSTAT); \
	tree=$$(mktemp -d); trap 'rm -rf $$tree' EXIT; \
	git archive "$(BASE)" | tar -x -C $$tree; \
	bench() { $(GO) -C $$1 test -run '^$$' -bench . -benchmem -benchtime 100ms ./proxy/... ./imapbackend/...; }; \
	for round in 1 2 3 4 5 6; do \
		echo "make bench-compare: round $$round of 6" >&2; \
		bench $$tree >>$$tree/base.txt; bench . >>$$tree/new.txt; \
	done; \
	bin/benchstat "$(BASE)=$$tree/base.txt" "work tree=$$tree/new.txt"

# popgate beside Dovecot as a gateway and Dovecot's own POP3: docs/performance.md.
# STAGES=all for everything; ROUNDS, WORK and OUT are in bench.sh.
bench-peer: build
	$(GO) build -o bin/popbench ./cmd/popbench
	cmd/popbench/scripts/bench.sh

# Programs that the tests with the tag integration run: file or command, and the
# Debian package that has it.
TOOLS = /usr/lib/dovecot/imap:dovecot-imapd /usr/lib/dovecot/pop3:dovecot-pop3d \
	curl:curl fetchmail:fetchmail mpop:mpop getmail:getmail6 python3:python3 \
	openssl:openssl gcc:gcc /usr/include/stdlib.h:libc6-dev \
	/usr/sbin/haproxy:haproxy fail2ban-regex:fail2ban testssl:testssl.sh

# policy-rc.d keeps the packages from starting services.
deps:
	@missing=; for t in $(TOOLS); do \
		[ -e "$${t%%:*}" ] || command -v "$${t%%:*}" >/dev/null || missing="$$missing $${t##*:}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null || [ "$$(id -u)" -ne 0 ]; then \
		echo "The tests need programs that are not installed. Install these packages (names as in Debian):" >&2; \
		echo "   $$missing" >&2; \
		echo "as root: apt-get install --no-install-recommends$$missing" >&2; \
		exit 1; \
	fi; \
	echo "installing$$missing"; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
		trap "rm -f $$policy" EXIT; \
		printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	install="apt-get install -y -q --no-install-recommends $$missing"; \
	$$install || { { apt-get update -q || apt-get update -q; } && $$install; } || { \
		echo "make deps: apt-get has failed twice, see above; the tests need$$missing" >&2; exit 1; \
	}

# IMAP servers other than Dovecot, for the tests of imapbackend/servertest: made
# once, in the user's cache or in POPGATE_SERVERS=DIR.
servers: TOOLS += node:nodejs npm:npm
servers: deps
	@imapbackend/servertest/prepare.sh

# Tests with those servers, or with SERVER=NAME only.
interop: servers
	$(GO) test -race -shuffle=on -tags integration -timeout 15m -parallel 6 \
		$(if $(SERVER),-count 1 -v -run '/^$(SERVER)$$') ./imapbackend/servertest

# docs/upstreams.md from what those tests find.
upstreams-doc: servers
	$(GO) test -tags integration -timeout 15m -parallel 6 -count 1 -run '^TestGateway$$|^TestDocument$$' ./imapbackend/servertest -update

# Runs the server NAME until Ctrl-C.
server: servers
	$(GO) run -tags integration ./imapbackend/servertest/serve $(NAME)
