# `make help` lists the targets. Those that check one thing (lint, doc, deny, proto-lint, unit) need `make test-deps` first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(SORTINGHAT_CACHE),$(HOME)/.cache/sortinghat)
export SORTINGHAT_CACHE := $(CACHE)
export PATH := $(CACHE)/tools/bin:$(PATH)

# Packages that must build on a machine without libtorch.
WITHOUT_LIBTORCH := sortinghat-proto sortinghat-link sortinghat-objects sortinghat-pages sortinghat-coordinator sortinghat-client sortinghat-photos

.NOTPARALLEL:
.PHONY: help deps test-deps build release demo test fmt fmt-check lint doc deny proto-lint layering python python-unit unit \
	stores power-cuts simulate chaos test-skew bench bench-queue bench-upload bench-sandbox compare compare-recipes compare-decoding images \
	test-charts try-images restore-drill dist test-dist clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

deps: ## Install libtorch, weights and photos into ~/.cache/sortinghat
	@deploy/install.sh demo

test-deps: ## Install what the tests need as well
	@deploy/install.sh test

build: deps ## Build hat, the coordinator and the worker
	cargo build --workspace --bins

release: deps ## The same, fully optimised
	cargo build --workspace --bins --release

demo: build ## From a folder of photos to predictions, under ten minutes on two cores
	@deploy/demo.sh

# The test runner comes last, so that the end of the output is its summary.
test: test-deps fmt-check layering proto-lint deny lint doc python-unit test-charts unit ## Check and test everything

fmt: ## Format the code
	cargo fmt --all

fmt-check:
	cargo fmt --all --check

lint: ## Clippy, warnings are errors
	cargo clippy --workspace --all-targets -- -D warnings

doc: ## The documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

deny: ## Licences, bans and sources of all dependencies
	cargo deny --log-level error --all-features check --hide-inclusion-graph licenses bans sources

proto-lint: ## Lint the protocol
	buf lint

layering: ## Only the worker knows a tensor
	@for package in $(WITHOUT_LIBTORCH); do \
	  tree=$$(cargo tree --package $$package --prefix none); \
	  if grep -E '^(tch|torch-sys) ' <<<"$$tree"; then echo "$$package depends on libtorch" >&2; exit 1; fi; \
	done; echo "layering: $(WITHOUT_LIBTORCH) do not depend on libtorch"

python: ## Generate the Python client's stubs and its synchronous half, and check its types
	$(CACHE)/python/bin/python client/python/generate.py
	cd client/python && $(CACHE)/python/bin/python -m mypy

python-unit: python
	$(CACHE)/python/bin/python -m unittest discover --quiet --start-directory tests/python
	$(CACHE)/python/bin/python client/python/tests/test_offline.py --quiet

# It builds the binaries, too.
unit:
	cargo nextest run --workspace

COMMANDS ?= 10000000
CUTS ?= 2000
SEEDS ?= 10000
SEED ?= 0
SUITE := cargo test --package sortinghat-coordinator

stores: ## Random commands, COMMANDS from SEED: all stores answer alike
	@deploy/install.sh redis
	SORTINGHAT_RANDOM_COMMANDS=$(COMMANDS) SORTINGHAT_SEED=$(SEED) $(SUITE) --test store_contract random -- --nocapture

power-cuts: ## The embedded store through CUTS losses of power from SEED on
	SORTINGHAT_POWER_CUTS=$(CUTS) SORTINGHAT_SEED=$(SEED) $(SUITE) --test store_contract power -- --nocapture

simulate: ## The coordinator in virtual time with faults, SEEDS from SEED on
	SORTINGHAT_SIMULATIONS=$(SEEDS) SORTINGHAT_SEED=$(SEED) $(SUITE) --test simulation whatever -- --nocapture

# The size of a chaos run.
FAULTS ?= 60
JOBS ?= 2000
STORE ?= embedded
BACKLOG ?= 100000

chaos: deps ## Faults against real processes, then a check of every job: FAULTS=n JOBS=n SEED=n STORE=embedded or redis
	@deploy/install.sh redis
	cargo build --workspace --bins --example chaos
	$${CARGO_TARGET_DIR:-target}/debug/examples/chaos --faults $(FAULTS) --jobs $(JOBS) --seed $(SEED) --store $(STORE) \
	  --backlog $(BACKLOG)

restore-drill: $(if $(BIN),,build) ## Lose the queue in the middle of work and restore it from an older copy, over a file and over Redis: BIN=folder
	@deploy/install.sh demo redis
	python3 tests/python/restore_drill.py $(or $(BIN),$${CARGO_TARGET_DIR:-target}/debug) $(CACHE)/photos/stamps $(CACHE)/weights \
	  $(CACHE)/redis/bin/valkey-server

# The programs of the other commit are built in target/skew, with the settings and the dependencies of its own time.
test-skew: build ## Programs of another commit beside those of today, in both directions: OLD=COMMIT
	@git rev-parse --verify --quiet "$(OLD)^{commit}" >/dev/null || { echo "test-skew: name a commit, such as OLD=HEAD~1" >&2; exit 2; }
	rm -rf target/skew/source && mkdir -p target/skew/source
	git archive "$(OLD)" | tar -x -C target/skew/source
	ln -sfn "$(CURDIR)/.deps" target/skew/source/.deps
	cd target/skew/source && CARGO_TARGET_DIR="$(CURDIR)/target/skew/target" cargo build --workspace --bins
	SORTINGHAT_OLD_PROGRAMS="$(CURDIR)/target/skew/target/debug" cargo nextest run --workspace --test versions --no-capture

bench: deps ## Photos a second on this machine, beside plain PyTorch settings
	cargo run --release --package sortinghat-worker --example throughput -- $(CACHE)/photos

# RUN takes options: --rounds, --jobs, --depths 1000,1000000, --workers, --alone, --parts overload.
bench-queue: test-deps ## Jobs a second through the queue, beside BullMQ and Celery: RUN="--depths 1000000"
	@deploy/install.sh queue-peers
	cargo build --release --package sortinghat-coordinator --package sortinghat-worker --bins
	cargo run --release --package sortinghat-tests --example bench_queue -- $(RUN)

# RUN takes options: --small 100000, --large 1000, --rounds, --round-trip-ms, --folder.
bench-upload: ## Files a second of uploads, for the first time and again, beside rclone: RUN="--small 100000 --large 1000"
	-@deploy/install.sh rclone
	cargo build --release --package sortinghat-coordinator --package sortinghat-client --bins
	cargo run --release --package sortinghat-tests --example bench_upload -- --rclone $(CACHE)/rclone/bin/rclone $(RUN)

bench-sandbox: release ## The same jobs with and without the sandbox of executors, in turns
	$(CACHE)/python/bin/python tests/python/bench_sandbox.py $${CARGO_TARGET_DIR:-target}/release $(CACHE)/photos/stamps $(CACHE)/weights

compare: test-deps build ## Accuracy beside fastai on the same folds; about two hours, see docs/parity.md
	tests/python/compare.sh

compare-recipes: release ## Accuracy and time of the recipes fast, best and auto beside fastai's kept predictions; minutes
	tests/python/compare_recipes.sh

compare-decoding: ## Decode every file in DIR here and in Pillow, and count: same, differs, only we, only they
	@test -d "$(DIR)" || { echo "compare-decoding: name a folder of pictures, such as DIR=photos" >&2; exit 2; }
	@deploy/install.sh python
	cargo build --quiet --package sortinghat-photos --example decode
	@$(CACHE)/python/bin/python worker/photos/tests/golden/compare_decoding.py \
	  $${CARGO_TARGET_DIR:-target}/debug/examples/decode "$(DIR)"

# BIN is a folder with programs; without it, they are built. IMAGES are coordinator, worker, hat (all three by default) or worker-cuda.
images: $(if $(BIN),,release) ## Container images without a registry or a daemon, into target/images: BIN=folder IMAGES="worker hat"
	@deploy/install.sh libtorch weights images
	@deploy/images/build.sh $(or $(BIN),$${CARGO_TARGET_DIR:-target}/release) $(IMAGES)

test-charts: ## The Helm chart and the kustomize base; with UPDATE_DOCS=1, write the golden files and the base anew
	@deploy/install.sh charts
	$(CACHE)/charts/bin/python -m unittest discover --quiet --start-directory tests/charts

try-images: ## Photos through the images of `make images`, run as the chart's pods are, in a containerd of our own; as root
	@deploy/install.sh charts redis photos
	$(CACHE)/charts/bin/python tests/charts/try_images.py $${CARGO_TARGET_DIR:-target}/images $(CACHE)/photos/stamps \
	  $(CACHE)/redis/bin/valkey-server

dist: $(if $(BIN),,release) ## A wheel, a Debian package and a tarball, into target/dist: BIN=folder
	@deploy/install.sh python
	@deploy/dist/build.sh $(or $(BIN),$${CARGO_TARGET_DIR:-target}/release)

test-dist: ## Install each of them where nothing else is, and go from photos to predictions; minutes: PACKAGES="wheel deb tarball"
	@deploy/dist/test.sh $(PACKAGES)

clean: ## Remove build outputs; the cache stays
	cargo clean
