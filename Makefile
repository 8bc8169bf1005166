# twwatch. `make help` lists the targets. Nothing here needs more than Go, the
# Go module proxy and Debian's packages.

GO       ?= go
FUZZTIME ?= 5s

GOLANGCI_VERSION := v2.15.0

# Tools are installed beside the sources, and never into the system.
TOOLS    := $(CURDIR)/.tools
GOLANGCI := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

export PATH := $(TOOLS)/bin:$(PATH)
# A checkout owned by another user makes git refuse, and then go: the revision
# is passed by scripts/build instead.
export GOFLAGS := $(strip $(filter-out -buildvcs%,$(GOFLAGS)) -buildvcs=false)
export GO FUZZTIME TOOLS

.DEFAULT_GOAL := help
.PHONY: help build run test race fuzz lint bench scale picture generate check-generated dist packages image test-deploy setup clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

build: ## build bin/twwatch for this machine
	scripts/build bin/twwatch

run: build ## start the daemon on this host (RUN_FLAGS="--interval=5s" adds flags)
	exec bin/twwatch serve $(RUN_FLAGS)

test: ## install what the tests need (Debian), then run all of them
	scripts/test

race: ## run all tests under the race detector (needs gcc)
	CGO_ENABLED=1 $(GO) test -race -count=1 ./...

fuzz: ## run every fuzz target for FUZZTIME (5s)
	scripts/fuzz

lint: $(GOLANGCI) ## golangci-lint, vet for linux/arm64 and darwin, and go.mod
	$(GOLANGCI) run
	cd deploy/test && $(GOLANGCI) run --config=$(CURDIR)/.golangci.yml
	$(GO) mod tidy -diff
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...

$(GOLANGCI):
	GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

bench: setup ## measure speed and memory against the peers (docs/benchmarks.md)
	scripts/bench

scale: setup ## measure what 2,000 hosts cost a Prometheus (docs/scale.md)
	scripts/scale

picture: ## make the pictures in README.md and docs/ anew (runs twwatch demo and top)
	scripts/picture
	scripts/picture-page

generate: ## write the generated files anew
	$(GO) generate ./...
	scripts/prometheusrule

check-generated: ## fail if a generated file isn't what `make generate` writes
	scripts/check-generated

dist: ## static binaries for linux/amd64 and linux/arm64, with checksums, in dist/
	scripts/dist

packages: dist ## deb and rpm for amd64 and arm64, in dist/
	scripts/setup-deploy
	scripts/packages

image: ## build the container image with docker, as twwatch:VERSION
	scripts/image

test-deploy: ## make the packages, and test unit, packages, image and manifests (root, Debian)
	scripts/test-deploy

setup: ## install what tests and benchmarks need (make test does it itself)
	scripts/setup

clean: ## remove what was built, and the tools
	rm -rf bin dist .tools
