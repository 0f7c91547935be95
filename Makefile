# `make` or `make help` lists the targets. Nothing is needed beforehand but git, make and Go.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0

# Packages of testdata are not part of ./... and are named.
PACKAGES := ./... $(addsuffix /...,$(addprefix ./testdata/,vm lab e2e faults demo bench budget cluster sdk upgrade))
MEASURED := ./driver ./datera ./iscsi ./mount

export CGO_ENABLED ?= 1
BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$(VERSION)"

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the executables into bin: static and reproducible
	@mkdir -p bin
	$(BUILD) -o bin/ ./cmd/...

# All files of the image carry the time of the commit, so that it is the same wherever it is built.
IMAGE ?= datera-flexvolume:dev
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

.PHONY: man
man: ## build/man: manual pages of iscsi
	go run -tags man ./cmd/iscsi man build/man

.PHONY: image
image: build ## build/image.tar: the container image of installer and provisioner, with its bill of materials; PUSH=REFERENCE pushes it, too
	@mkdir -p build
	go -C deploy run ./image -output $(CURDIR)/build/image.tar -tag $(IMAGE) -version $(VERSION) -revision "$(REVISION)" $(if $(PUSH),-push $(PUSH)) $(CURDIR)/bin/iscsi $(CURDIR)/bin/datera-provisioner

.PHONY: demo
demo: build vm ## the seed's PersistentVolume through its whole life, in virtual machines
	@go run ./testdata/demo

.PHONY: test
test: unit kubelet e2e ## every test: units, Kubernetes' own code, real iSCSI

.PHONY: unit
unit: tools ## the unit tests, with the race detector and coverage
	go test -race -cover ./... ./testdata/sdk
	go test -count=1 ./driver/access -run '^Test(AWrongField|EveryOrder)' -orders 150
	go test -count=1 ./testdata/upgrade
	go -C deploy test ./...

.PHONY: sdk
sdk: ## every call of the vendor's client for Go against the simulator
	go test -count=1 ./testdata/sdk

# What the cluster answers to GET /v2.1/api, in a file.
SCHEMA ?=

.PHONY: fidelity
fidelity: ## SCHEMA=FILE: the simulator's facts against a cluster's own description of its API
	@test -n "$(SCHEMA)" || { echo "name the file that holds the answer to GET /v2.1/api: make fidelity SCHEMA=FILE"; exit 2; }
	go test -count=1 -v -run '^Test(Fidelity|Facts)' ./datera/dateratest -schema "$(abspath $(SCHEMA))"

.PHONY: e2e
e2e: build vm ## the tests on real open-iscsi, xfs and ext4, in virtual machines
	go test -count=1 -timeout 30m ./testdata/vm/... ./testdata/e2e/... ./testdata/faults/...

.PHONY: faults
faults: build vm ## break every call off at every step that changes the world, and let everything die (an hour and more)
	go test -count=1 -timeout 2h ./driver/access -run '^Test(EveryOrder|Orders)' -orders 20000
	go test -count=1 -timeout 4h -v ./testdata/faults -all
	FAULTS=1 go test -count=1 -timeout 1h ./testdata/e2e/

.PHONY: model
model: ## ask the model of who may reach a volume every question, the large ones too (some minutes, some gigabytes)
	go test -count=1 -timeout 1h ./driver/access/model -large

.PHONY: kubelet
kubelet: build vm ## the driver under Kubernetes' own code, of today's version and of an old one
	cd testdata/kubelet && CGO_ENABLED=0 go vet . && CGO_ENABLED=0 go test -count=1 -timeout 30m .
	cd testdata/kubelet && CGO_ENABLED=0 go test -count=1 -timeout 30m -run TestOnNode -tags oldest -modfile=oldest.mod .

.PHONY: bench
bench: build vm ## the driver's times against bare shell commands
	@go run ./testdata/bench

.PHONY: cluster
cluster: build vm cluster-build ## a Kubernetes cluster that uses the driver, until ^C (the first build takes long)
	@build/cluster/story -hold

.PHONY: cluster-demo
cluster-demo: build vm cluster-build ## the seed's StatefulSet on a real cluster, through crashes and moves
	@build/cluster/story

# The next version is the same code under another name.
.PHONY: deploy-demo
deploy-demo: image vm cluster-build ## a cluster without the driver, and all that deploy does for it: install, claims, upgrade, uninstall
	@mkdir -p build/next
	@$(BUILD:$(VERSION)"=$(VERSION)-next") -o build/next/ ./cmd/iscsi ./cmd/datera-provisioner
	@go -C deploy run ./image -output $(CURDIR)/build/next/image.tar -tag datera-flexvolume:next -version $(VERSION)-next $(CURDIR)/build/next/iscsi $(CURDIR)/build/next/datera-provisioner
	@testdata/cluster/redis.sh build/cluster/redis
	@build/cluster/story -deploy

.PHONY: cluster-build
cluster-build:
	@testdata/cluster/build.sh build/cluster
	@rm -rf build/cluster/run
	@go build -o build/cluster/story ./testdata/cluster/story

.PHONY: vm
vm: tools ## build the image of the virtual machines (cached)
	@testdata/vm/build.sh

.PHONY: tools
tools: ## install what the tests need of Debian's or Ubuntu's packages
	@testdata/tools.sh

# Where vuln.go.dev cannot be reached: file:// and the folder data/osv of a clone of golang/vulndb.
VULNDB ?= https://vuln.go.dev

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, tidy modules and, where it can run, govulncheck
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go mod tidy -diff
	go vet $(PACKAGES)
	go run $(STATICCHECK) $(PACKAGES)
	cd testdata/kubelet && go mod tidy -diff && go mod tidy -diff -modfile=oldest.mod
	cd deploy && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...
	@GOBIN=$(CURDIR)/build/bin go install $(GOVULNCHECK)
	@build/bin/govulncheck -db $(VULNDB) ./... || { code=$$?; [ $$code -ne 3 ] && echo "govulncheck could not ask its database" || exit $$code; }

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
