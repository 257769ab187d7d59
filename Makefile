# The two commands of the README are `make demo` and `make test`; each does its own set-up.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

export FORETOKEN_S3_BIN ?= $(CURDIR)/bin/foretoken-s3
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: build setup demo test lint unit browser clients fuzz reference exports bench report clean

build: ## both binaries: the service and its embedded S3
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/foretoken ./cmd/foretoken
	cd storage/s3server && go build -trimpath -o ../../bin/foretoken-s3 .

setup: ## ONNX Runtime's shared library, from an ordinary package, into .cache/ort
	scripts/fetch-ort.sh

demo: setup build ## real images, a tuned prompt, an HTTP answer
	bin/foretoken demo

test: setup build browser clients lint unit ## everything that has to pass

lint: ## format, vet, static checks, known vulnerabilities
	@bad=$$(go run $(GOFUMPT) -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); \
	if [ -n "$$bad" ]; then echo "not gofumpt-formatted:"; echo "$$bad"; exit 1; fi
	go vet ./...
	cd storage/s3server && go vet ./...
	go run $(STATICCHECK) ./...
	cd storage/s3server && go run $(STATICCHECK) ./...
	scripts/vulncheck.sh $(GOVULNCHECK)

unit: ## all tests under the race detector, the nested module's too
	go test -race -timeout 20m -p 2 ./...
	cd storage/s3server && go test -race ./...

browser: ## Chromium for the page's test, where this machine lets us install it
	scripts/setup-browser.sh

clients: ## OpenAI's clients for Python and Node, where this machine has both languages
	scripts/setup-clients.sh

# A fuzz target runs alone and for as long as FUZZTIME says; what it finds goes into its testdata.
FUZZTIME ?= 10m
FUZZ := ./graph:FuzzParse ./prompt:FuzzRead ./dataset:FuzzImportZip ./text/tokenizer:FuzzParse ./text/tokenizer:FuzzEncode

fuzz: setup ## ten minutes for each parser of hostile input
	@for f in $(FUZZ); do go test $${f%%:*} -run '^$$' -fuzz "^$${f##*:}$$" -fuzztime $(FUZZTIME); done

reference: setup ## PyTorch follows the tuning of the tests; for bench/reference/requirements.txt
	test -d .cache/reference || (python3 -m venv .cache/reference && .cache/reference/bin/pip install -q -r bench/reference/requirements.txt)
	mkdir -p .cache/trajectory
	FORETOKEN_TRAJECTORY_OUT=$(CURDIR)/.cache/trajectory go test -count 1 ./tuning -run '^TestTrajectory$$'
	.cache/reference/bin/python bench/reference/trajectory.py starter/bundle .cache/trajectory tuning/testdata/trajectory

exports: setup ## many exporters' graphs with PyTorch's gradients, from bench/reference/exporters.txt, through the fixtures' test
	test -d .cache/exporters || (python3 -m venv .cache/exporters && .cache/exporters/bin/pip install -q -r bench/reference/exporters.txt)
	.cache/exporters/bin/python bench/reference/exporters.py .cache/exports 2>.cache/exports.log
	FORETOKEN_FIXTURES=$(CURDIR)/.cache/exports go test -count 1 ./graph/fixtures -run Fixtures

bench: setup build ## hot paths, and a step of tuning beside PyTorch; writes docs/benchmarks.md
	bench/run.sh

report: setup build ## the demo's table over three seeds beside PyTorch; writes docs/report.md
	bench/report.sh

clean:
	rm -rf bin .cache
