# Each target is one line or one script in hack/.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)

.PHONY: help build demo test unit kernel e2e race fuzz bench bench-quick bench-path bench-core scale parity breaks lint manifests verify clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build bin/kube-hop
	@mkdir -p bin
	$(GO) build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kube-hop ./cmd/kube-hop

demo: ## two nodes, pods and an outside client on a real kernel: see IPVS move packets (3 minutes)
	@hack/demo

test: ## unit, script and real-kernel tests (10 minutes warm, 30 cold)
	@hack/test all

unit: ## unit and script tests only; needs no privileges
	@hack/test unit

kernel: ## the real-kernel tests only; RUN=regexp picks some
	@hack/test kernel

race: ## unit and script tests with the race detector
	CGO_ENABLED=1 $(GO) test -race ./...

fuzz: ## each fuzz target for FUZZTIME (default 20s)
	@hack/fuzz

bench: ## kube-hop and kube-proxy with 1,000 to 20,000 Services: writes docs/benchmarks.md (SUBJECTS=, SIZES=; hours)
	@hack/bench

bench-quick: ## the same with 200 and 1,000 Services and fewer measurements (minutes)
	@hack/bench quick

bench-path: ## instructions of a connection and of a request, in a guest that counts them (SUBJECTS=, SIZES=; with SIZES=1000 2 to 3 minutes each)
	@hack/bench path

bench-core: ## Go benchmarks of the core, without a kernel; two outputs of COUNT=10 compare with benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count $(or $(COUNT),1) ./proxier/... ./informers

scale: ## 10,000 Services with 10 endpoints on a real kernel, adopted after a restart (SCALE=n for another number)
	@hack/scale

parity: ## the proof beside kube-proxy: writes docs/parity.md (SUBJECTS=, RUN=, SHORT=1; an hour or more a subject)
	@hack/parity

breaks: ## the proof that the end-to-end tests can fail: breaks the daemon in some 60 ways (RUN=regexp; within an hour)
	@hack/breaks

lint: ## golangci-lint at the version pinned in hack/lint
	@hack/lint

manifests: ## check the manifests against the code
	$(GO) test ./manifests

verify: lint test ## what has to pass before a change lands

clean: ## remove what was built; downloads stay in the cache folder
	rm -rf bin .cache
