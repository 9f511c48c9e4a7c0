# Everything that is done to this repository by command. `make` lists it.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What the tests need besides Go: the race detector a C compiler, the
# interoperability tests real peers, an independent reader of audio and an
# independent opener of what is sealed.
# Each is program:package of Debian.
TOOLS := gcc:gcc sipp:sip-tester baresip:baresip-core linphonec:linphone-cli sox:sox age:age

FUZZTIME ?= 60s
SOAK     ?= 600

# The simulated day: how long, and what is drawn for it.
SIM  ?= 24h
SEED ?= $(shell date +%s)

say = @printf '\n== %s\n' "$(1)"

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## the switch with a simulated carrier and phones; Ctrl-C ends it
	go run ./cmd/centralka demo

test: tools ## all checks and tests, the interoperability tests included
	$(call say,gofmt)
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	$(call say,go vet)
	go vet ./...
	go vet -tags interop ./...
	$(call say,build without cgo)
	CGO_ENABLED=0 go build ./...
	$(call say,tests with the race detector)
	CGO_ENABLED=1 go test -race ./...
	@$(MAKE) sim SIM=2h
	@$(MAKE) interop
	$(call say,all green)

interop: tools ## tests against real peers: SIPp, baresip, sox
	$(call say,interoperability tests)
	@packages=$$(grep -rlE '^//go:build interop' --include='*_test.go' . | xargs -r -n1 dirname | sort -u || true); \
	if [ -z "$$packages" ]; then echo "no package has tests with the tag interop"; exit 0; fi; \
	set -x; go test -tags interop -count=1 $$packages

sim: ## a day of the city in simulated time (SIM=24h SEED=number)
	$(call say,$(SIM) of the city in simulated time)
	go test ./pbx -count=1 -timeout 30m -v -run '^TestDay$$' -sim.length $(SIM) -sim.seed $(SEED)

bench: floor ## the switch under load on this machine, beside a bare C relay and rtpengine; BENCH="--calls 500"
	go run ./cmd/centralka bench --floor bin/relay $(BENCH)

bench-profile: ## CPU and allocation profiles of the switch under load, in profiles/
	go run ./cmd/centralka bench --alone --profile profiles $(BENCH)

bench-page: floor ## measures anew what docs/performance.md shows; needs a quiet machine for some ten minutes
	go build -o bin/bench ./cmd/centralka
	bin/bench bench --floor bin/relay --calls 200 --write docs/performance.md
	bin/bench bench --alone --calls 200 --busy 2 --write docs/performance.md
	bin/bench bench --scale --floor bin/relay --rate 40 --seconds 10 --write docs/performance.md

soak: ## 50 calls for SOAK seconds (600): no packet lost, nothing grows
	go run ./cmd/centralka bench --alone --calls 50 --seconds $(SOAK) $(BENCH)

# What the bench compares with; no part of the program.
floor:
	@mkdir -p bin
	gcc -O2 -Wall -Wextra -o bin/relay cmd/centralka/bench/relay.c

fuzz: ## each fuzz target for FUZZTIME (60s)
	@for package in $$(go list ./...); do \
		listed=$$(go test -list '^Fuzz' "$$package"); \
		for target in $$(grep '^Fuzz' <<<"$$listed" || true); do \
			printf '\n== %s %s\n' "$$package" "$$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

build: ## bin/centralka, static
	CGO_ENABLED=0 go build -trimpath -o bin/centralka ./cmd/centralka

fmt: ## formats all Go files
	gofmt -w .

# Asks the package manager only for what is not there.
tools:
	$(call say,tools)
	@command -v go >/dev/null || { echo "Go is missing: https://go.dev/dl (go.mod names the version)"; exit 1; }
	@missing=; for tool in $(TOOLS); do command -v "$${tool%%:*}" >/dev/null || missing="$$missing $${tool##*:}"; done; \
	if [ -z "$$missing" ]; then echo "all there"; exit 0; fi; \
	case "$$missing" in *" gcc"*) missing="$$missing libc6-dev";; esac; \
	echo "installing$$missing"; \
	if ! command -v apt-get >/dev/null; then echo "apt-get is missing; install by hand what Debian calls:$$missing"; exit 1; fi; \
	as=; if [ "$$(id -u)" != 0 ]; then as=sudo; command -v sudo >/dev/null || { echo "neither root nor sudo; install by hand:$$missing"; exit 1; }; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$as apt-get install -y --no-install-recommends $$missing || \
	{ $$as apt-get update && $$as apt-get install -y --no-install-recommends $$missing; } || \
	{ echo "could not install$$missing; install by hand and run make test again"; exit 1; }

.PHONY: help demo test interop sim bench bench-profile bench-page soak floor fuzz build fmt tools
