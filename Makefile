# `make` or `make help` lists the targets. Nothing is needed beforehand but git, make and Go.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0

# Packages of testdata are not part of ./... and are named.
PACKAGES := ./... ./testdata/vm/... ./testdata/lab/... ./testdata/e2e/... ./testdata/demo/... ./testdata/bench/... ./testdata/budget/...
MEASURED := ./driver ./datera ./iscsi ./mount

export CGO_ENABLED ?= 1
BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$(VERSION)"

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/iscsi and bin/datera-sim: static and reproducible
	@mkdir -p bin
	$(BUILD) -o bin/ ./cmd/...

.PHONY: demo
demo: build vm ## the seed's PersistentVolume through its whole life, in virtual machines
	@go run ./testdata/demo

.PHONY: test
test: unit e2e ## every test: units and real iSCSI

.PHONY: unit
unit: tools ## the unit tests, with the race detector and coverage
	go test -race -cover ./...

.PHONY: e2e
e2e: build vm ## the tests on real open-iscsi, xfs and ext4, in virtual machines
	go test -count=1 -timeout 30m ./testdata/vm/... ./testdata/e2e/...

.PHONY: bench
bench: build vm ## the driver's times against bare shell commands
	@go run ./testdata/bench

.PHONY: vm
vm: tools ## build the image of the virtual machines (cached)
	@testdata/vm/build.sh

.PHONY: tools
tools: ## install what the tests need of Debian's or Ubuntu's packages
	@testdata/tools.sh

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, tidy modules and, where it can run, govulncheck
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go mod tidy -diff
	go vet $(PACKAGES)
	go run $(STATICCHECK) $(PACKAGES)
	@GOBIN=$(CURDIR)/build/bin go install $(GOVULNCHECK)
	@build/bin/govulncheck ./... || { code=$$?; [ $$code -ne 3 ] && echo "govulncheck could not ask its database" || exit $$code; }

.PHONY: coverage
coverage: tools ## statement coverage of the packages that hold the logic
	@mkdir -p build
	go test -coverprofile build/coverage.out $(MEASURED)
	@go tool cover -func build/coverage.out | tail -1

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep ^Fuzz); do \
			echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin build
