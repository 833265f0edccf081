# Probity. `make help` lists what can be done here.
SHELL := /bin/bash
.DEFAULT_GOAL := help

MODULES := proto services workflows standalone e2e e2e/naive
BIN := $(CURDIR)/bin
# The schema of protovalidate's annotations, unpacked from the Go module cache.
PROTOVALIDATE := github.com/bufbuild/protovalidate@v1.2.0
DATA_DIR ?= .probity
LDFLAGS := -s -w

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Start everything in one process and adjudicate the sample file (ONCE=1: then stop)
	@$(BIN)/probity-standalone --data-dir $(DATA_DIR) --sample $(if $(ONCE),--once)

.PHONY: build
build: ## Build bin/probity, bin/probity-worker and bin/probity-standalone
	@mkdir -p $(BIN)
	@tools/progress "building probity (a cold cache takes some minutes)" go build -ldflags '$(LDFLAGS)' -o $(BIN)/ \
		./services/cmd/probity ./workflows/cmd/probity-worker ./standalone/cmd/probity-standalone

.PHONY: test
test: ## Run every module's tests
	@tools/progress "compiling tests" go vet ./proto/... ./services/... ./workflows/... ./standalone/... ./e2e/...
	go test -timeout 9m ./services/... ./workflows/... ./standalone/... ./e2e/...

.PHONY: lint
lint: $(BIN)/golangci-lint ## Lint Go and protos
	@for m in services workflows standalone e2e e2e/naive; do echo "lint $$m"; (cd $$m && $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done
	@$(MAKE) --no-print-directory workflowcheck buf-lint

.PHONY: workflowcheck
workflowcheck: $(BIN)/workflowcheck ## Check workflows for what breaks determinism
	@cd workflows && $(BIN)/workflowcheck ./...

.PHONY: buf-lint
buf-lint: $(BIN)/buf .cache/protovalidate
	@$(BIN)/buf lint && $(BIN)/buf format --diff --exit-code >/dev/null

.PHONY: generate
generate: $(BIN)/buf .cache/protovalidate ## Regenerate checked-in code and reference pages
	@PATH="$(BIN):$$PATH" $(BIN)/buf generate
	@go run ./services/cmd/probity docs --dir docs/reference/cli

.PHONY: drift
drift: generate ## Fail when generated files differ from what is checked in
	@git diff --exit-code --stat -- proto docs/reference || { echo "generated files differ: run 'make generate' and commit"; exit 1; }
	@test -z "$$(git status --porcelain -- proto docs/reference)" || { echo "generated files are not checked in"; git status --porcelain -- proto docs/reference; exit 1; }

.PHONY: modules
modules: ## Build every module by itself, without the workspace
	@for m in $(MODULES); do echo "GOWORK=off go build $$m"; (cd $$m && GOWORK=off go build ./...) || exit 1; done

.PHONY: conformance
conformance: build ## Check produced X12 with pyx12 (needs python3)
	@e2e/conformance/run.sh

SEEDS ?= 500
FROM ?= 0
.PHONY: sim
sim: ## Simulate the ledger under faults, SEEDS=n seeds from FROM on
	@go run ./services/ledger/sim/ledgersim -seeds $(SEEDS) -from $(FROM)

.PHONY: test-tlog
test-tlog: ## Test that Tessera's client reads and proves the ledger's static files
	@cd e2e/tlogclient && GOWORK=off go test ./...

.PHONY: test-kafka
test-kafka: ## Test the ledger on real Apache Kafka brokers (Java 17; SHORT=1: the quick part)
	@SHORT=$(SHORT) e2e/kafka/run.sh

.PHONY: wasm
wasm: ## Build bin/receipt.wasm, the receipt verifier for web pages
	@mkdir -p $(BIN)
	@cd services && GOOS=js GOARCH=wasm go build -ldflags '-s -w' -o $(BIN)/receipt.wasm ./ledger/receipt/browser
	@printf 'bin/receipt.wasm: %d bytes, %d gzipped\n' "$$(stat -c %s $(BIN)/receipt.wasm)" "$$(gzip -9 -c $(BIN)/receipt.wasm | wc -c)"

.PHONY: bench
bench: build ## Measure and write bench/latest.json
	@go run ./e2e/cmd/bench -o bench/latest.json

.PHONY: bench-claims
bench-claims: build ## Decide 100,000 generated claims, hold every cent against the naive model, write bench/claims.json
	@PROBITY_PYX12="$$(e2e/conformance/install.sh)" go run ./e2e/cmd/bench -parts claims -rounds 1 -claims 100000 -o bench/claims.json

.PHONY: bench-workflows
bench-workflows: build ## Measure what workflows cost and write bench/workflows.json
	@go run ./e2e/cmd/bench -parts workflows -claims 100000 -o bench/workflows.json

.PHONY: bench-ledger
bench-ledger: ## Measure the ledger beside its peers and write bench/ledger.json (PostgreSQL from Debian)
	@cd e2e/peers && GOWORK=off go run ./cmd/bench-ledger -o $(CURDIR)/bench/ledger.json

.PHONY: test-peers
test-peers: ## Test that the bench of peers measures; its module is apart from the others
	@cd e2e/peers && GOWORK=off go vet ./... && GOWORK=off go test ./...

.PHONY: clean
clean: ## Remove built binaries and the standalone data directory
	rm -rf $(BIN) $(DATA_DIR)

.cache/protovalidate:
	@mkdir -p $@
	@dir=$$(GOWORK=off GOFLAGS=-mod=mod go mod download -json $(PROTOVALIDATE) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p') && \
		cp -r $$dir/proto/protovalidate/buf $@/ && chmod -R u+w $@

$(BIN)/buf: tools/go.mod
	@mkdir -p $(BIN)
	@cd tools && ./progress "building buf and the protobuf plugins" env GOWORK=off go build -o $(BIN)/ github.com/bufbuild/buf/cmd/buf \
		google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
	@touch $@

$(BIN)/golangci-lint $(BIN)/workflowcheck: tools/lint/go.mod
	@mkdir -p $(BIN)
	@cd tools/lint && ../progress "building linters" env GOWORK=off go build -o $(BIN)/ \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint go.temporal.io/sdk/contrib/tools/workflowcheck
	@touch $(BIN)/golangci-lint $(BIN)/workflowcheck
