# The two commands of the README are `make demo` and `make test`; each does its own set-up.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

export FORETOKEN_S3_BIN ?= $(CURDIR)/bin/foretoken-s3
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: build setup demo test lint unit browser clients fuzz reference exports exports-older exports-jax exports-tensorflow node-tests baked real-sizes sd-sizes test-webgpu test-cuda memory fused bench report report-captions report-painter clean

build: ## both binaries: the service and its embedded S3
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/foretoken ./cmd/foretoken
	cd storage/s3server && go build -trimpath -o ../../bin/foretoken-s3 .

setup: ## ONNX Runtime's shared library, from an ordinary package, into .cache/ort
	scripts/fetch-ort.sh

demo: setup build ## real images, tuned prompts, answers, captions and pictures over HTTP
	bin/foretoken demo --generate

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
FUZZ := ./graph:FuzzParse ./prompt:FuzzRead ./dataset:FuzzImportZip ./text/tokenizer:FuzzParse ./text/tokenizer:FuzzEncode ./text:FuzzCLIPVocabulary ./generation/diffusion/schedule:FuzzParse ./generation/diffusion:FuzzConfigs

fuzz: setup ## ten minutes for each parser of hostile input
	@for f in $(FUZZ); do go test $${f%%:*} -run '^$$' -fuzz "^$${f##*:}$$" -fuzztime $(FUZZTIME); done

test-webgpu: ## the fixtures on another device: WebGPU, on a software Vulkan driver
	scripts/setup-webgpu.sh
	@source .cache/ort-webgpu/env; export FORETOKEN_DEVICE=webgpu; \
	go test -count 1 -v ./internal/ort -run '^TestTheDevice'; \
	go test -count 1 -v -parallel 1 -timeout 2h ./graph/fixtures -run '^TestFixtures$$/.*/onnxruntime' >.cache/ort-webgpu/fixtures.log && failed= || failed=1; \
	grep -E '^    --- ' .cache/ort-webgpu/fixtures.log; \
	[ -z "$$failed" ] || { echo "what failed, and why, is in .cache/ort-webgpu/fixtures.log"; exit 1; }

test-cuda: setup ## the same on CUDA: FORETOKEN_ORT_LIB names a library that is built with it
	@if [ -e /dev/nvidia0 ]; then \
		export FORETOKEN_DEVICE=cuda; \
		go test -count 1 -v ./internal/ort -run '^TestTheDevice'; \
		go test -count 1 -timeout 2h ./graph/fixtures -run '^TestFixtures$$/.*/onnxruntime'; \
	else echo "SKIPPED: this machine has no CUDA device (/dev/nvidia0)"; fi

memory: setup ## peak memory of training alone, and with evaluation and serving, on a tower of ViT-B's size
	FORETOKEN_MEMORY=large go test -count 1 -v ./serving -run '^TestOneCopyOfTheWeights$$'

reference: setup ## PyTorch follows the tuning of the tests; for bench/reference/requirements.txt
	test -d .cache/reference || (python3 -m venv .cache/reference && .cache/reference/bin/pip install -q -r bench/reference/requirements.txt)
	mkdir -p .cache/trajectory
	FORETOKEN_TRAJECTORY_OUT=$(CURDIR)/.cache/trajectory go test -count 1 ./tuning -run '^TestTrajectory$$'
	.cache/reference/bin/python bench/reference/trajectory.py starter/bundle .cache/trajectory tuning/testdata/trajectory
	mkdir -p .cache/inversion
	FORETOKEN_INVERSION_OUT=$(CURDIR)/.cache/inversion go test -count 1 ./tuning/inversion -run '^TestTrajectory$$'
	.cache/reference/bin/python bench/reference/inversion.py follow .cache/inversion tuning/inversion/testdata/trajectory
	.cache/reference/bin/python bench/reference/captioning.py tuning/captioning/testdata
	.cache/reference/bin/python bench/reference/schedulers.py generation/diffusion/schedule/testdata
	.cache/reference/bin/python bench/reference/diffusion.py generation/diffusion/testdata

exports: setup ## many exporters' graphs with PyTorch's gradients, from bench/reference/exporters.txt, through the fixtures' test
	test -d .cache/exporters || (python3 -m venv .cache/exporters && .cache/exporters/bin/pip install -q -r bench/reference/exporters.txt)
	.cache/exporters/bin/python bench/reference/exporters.py .cache/exports 2>.cache/exports.log
	FORETOKEN_FIXTURES=$(CURDIR)/.cache/exports go test -count 1 ./graph/fixtures -run Fixtures

exports-older: setup ## the same with torch 2.6 and transformers 4.48, whose exports differ
	test -d .cache/exporters-older || (python3 -m venv .cache/exporters-older && .cache/exporters-older/bin/pip install -q -r bench/reference/exporters-older.txt)
	.cache/exporters-older/bin/python bench/reference/exporters.py .cache/exports-older 2>.cache/exports-older.log
	cd .cache/exports-older && rm -rf context_clip_text_longer_static_* convnext_dy_* siglip_vision_static_batch12_dy_* qdq4_clip_vision # see the requirements
	FORETOKEN_FIXTURES=$(CURDIR)/.cache/exports-older go test -count 1 ./graph/fixtures -run Fixtures

exports-jax: setup ## the same for towers that JAX and jax2onnx export, with JAX's gradients
	test -d .cache/jax || (python3 -m venv .cache/jax && .cache/jax/bin/pip install -q -r bench/reference/jax.txt)
	rm -rf .cache/exports-jax
	.cache/jax/bin/python bench/reference/jax_exports.py .cache/exports-jax 2>.cache/exports-jax.log
	FORETOKEN_FIXTURES=$(CURDIR)/.cache/exports-jax go test -count 1 ./graph/fixtures -run Fixtures

exports-tensorflow: setup ## the same for models that TensorFlow and tf2onnx export, with PyTorch's gradients for the same weights
	test -d .cache/exporters || (python3 -m venv .cache/exporters && .cache/exporters/bin/pip install -q -r bench/reference/exporters.txt)
	test -d .cache/tensorflow || (python3 -m venv .cache/tensorflow && .cache/tensorflow/bin/pip install -q -r bench/reference/tensorflow.txt)
	rm -rf .cache/exports-tensorflow
	.cache/exporters/bin/python bench/reference/tensorflow_exports.py reference .cache/exports-tensorflow
	.cache/tensorflow/bin/python bench/reference/tensorflow_exports.py export .cache/exports-tensorflow 2>.cache/exports-tensorflow.log
	FORETOKEN_FIXTURES=$(CURDIR)/.cache/exports-tensorflow go test -count 1 ./graph/fixtures -run Fixtures

node-tests: ## all of ONNX's node tests, generated by onnx of a pinned version; make test runs those with small operands
	test -d .cache/onnx || (python3 -m venv .cache/onnx && .cache/onnx/bin/pip install -q onnx==1.23.2)
	.cache/onnx/bin/python graph/testdata/onnx_node/make.py .cache/node.zip --limit 0
	FORETOKEN_NODE_TESTS=$(CURDIR)/.cache/node.zip go test -count 1 ./graph/interp -run ONNXNode

baked: setup ## prompts baked into files, run by plain ONNX Runtime in Python and compared with serving
	test -d .cache/exporters || (python3 -m venv .cache/exporters && .cache/exporters/bin/pip install -q -r bench/reference/exporters.txt)
	rm -rf .cache/baked && mkdir -p .cache/baked
	FORETOKEN_BAKED=$(CURDIR)/.cache/baked go test -count 1 ./tuning -run '^TestABakedFile'
	for f in .cache/baked/*.onnx; do echo "$$(basename "$$f" .onnx)"; .cache/exporters/bin/python bench/reference/baked.py "$$f" "$${f%.onnx}.npz"; done

# MODELS names some of the towers only, by parts of their names.
real-sizes: setup build ## CLIP's ViT-B/16 and ViT-L/14 and SigLIP's B/16 by both exporters: inspected and differentiated beside PyTorch; writes docs/benchmarks.md
	test -d .cache/exporters || (python3 -m venv .cache/exporters && .cache/exporters/bin/pip install -q -r bench/reference/exporters.txt)
	mkdir -p .cache/real && go test -c -o .cache/real/inspect.test ./tuning/inspect
	.cache/exporters/bin/python bench/reference/real.py measure .cache/real bin/foretoken .cache/real/inspect.test docs/benchmarks.md $(MODELS)

fused: setup ## what it is worth to run fused and quantised operators as a file has them: time and memory, on four blocks of ViT-B/16's size
	test -d .cache/exporters || (python3 -m venv .cache/exporters && .cache/exporters/bin/pip install -q -r bench/reference/exporters.txt)
	test -d .cache/fused || .cache/exporters/bin/python bench/reference/fused.py .cache/fused
	FORETOKEN_FUSED=$(CURDIR)/.cache/fused go test -count 1 -v -timeout 1h ./internal/ort -run '^TestWhatFusedNodesAreWorth$$'

sd-sizes: setup ## Stable Diffusion 1.5's sizes with random weights: a step of drawing and one of learning a word, on the CPU; writes docs/benchmarks.md
	test -d .cache/exporters || (python3 -m venv .cache/exporters && .cache/exporters/bin/pip install -q -r bench/reference/exporters.txt)
	mkdir -p .cache/sd15 && go test -c -o .cache/inversion.test ./tuning/inversion
	.cache/exporters/bin/python bench/reference/sd15.py export .cache/sd15
	.cache/exporters/bin/python bench/reference/sd15.py measure .cache/sd15 .cache/inversion.test docs/benchmarks.md

bench: setup build ## hot paths, and a step of tuning beside PyTorch; writes docs/benchmarks.md
	bench/run.sh

report: setup build ## the demo's table over three seeds beside PyTorch; writes docs/report.md
	bench/report.sh

report-captions: setup ## the starter's captioner before and after tuning over three seeds; writes docs/report-captions.md
	FORETOKEN_CAPTIONS_REPORT=$(CURDIR)/docs/report-captions.md go test -count 1 -timeout 2h -v ./tuning/captioning -run '^TestGain$$'

report-painter: setup ## a concept and a style learned with the starter's painter over three seeds; writes docs/report-painter.md and its picture
	FORETOKEN_PAINTER_REPORT=$(CURDIR)/docs go test -count 1 -timeout 2h -v ./tuning/inversion -run '^TestPainterReport$$'

clean:
	rm -rf bin .cache
