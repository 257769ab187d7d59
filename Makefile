# The two commands of the README are `make demo` and `make test`; each does its own set-up.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

export FORETOKEN_S3_BIN ?= $(CURDIR)/bin/foretoken-s3
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: build setup demo test lint unit browser fuzz bench report clean

build: ## both binaries: the service and its embedded S3
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/foretoken ./cmd/foretoken
	cd storage/s3server && go build -trimpath -o ../../bin/foretoken-s3 .

setup: ## ONNX Runtime's shared library, from an ordinary package, into .cache/ort
	scripts/fetch-ort.sh

demo: setup build ## real images, a tuned prompt, an HTTP answer
	bin/foretoken demo

test: setup build browser lint unit ## everything that has to pass

lint: ## format, vet, static checks, known vulnerabilities
	@bad=$$(go run $(GOFUMPT) -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); \
	if [ -n "$$bad" ]; then echo "not gofumpt-formatted:"; echo "$$bad"; exit 1; fi
	go vet ./...
	cd storage/s3server && go vet ./...
	go run $(STATICCHECK) ./...
	scripts/vulncheck.sh $(GOVULNCHECK)

unit: ## all tests under the race detector, the nested module's too
	go test -race -timeout 20m ./...
	cd storage/s3server && go test -race ./...

browser: ## Chromium for the page's test, where this machine lets us install it
	scripts/setup-browser.sh

clean:
	rm -rf bin .cache
