# Holdfast: `make run` starts a working store, `make test` is what CI runs. README.md says more.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BIN := $(TARGET)/debug
DATA ?= $(CURDIR)/data
S3_LISTEN ?= 127.0.0.1:9000
ADMIN_LISTEN ?= 127.0.0.1:9001
export HOLDFAST_BIN := $(BIN)/holdfast
export HOLDFAST_BENCH_BIN := $(BIN)/holdfast-bench
export HOLDFAST_CLIENTS := $(TARGET)/clients

.PHONY: help setup setup-clients setup-hosts build run test format clippy unit e2e soak sim bench bench-s3 bench-three bench-limits bench-codec \
	demo demo-cluster clean-data

help:
	@echo "make run         set up, build, start a store on this machine (data in ./data), print endpoint and keys"
	@echo "make test        format, clippy, unit, property and end-to-end tests with real S3 clients: what CI runs"
	@echo "make soak        the tests of whole clusters in trouble, a minute of load in each (SOAK=seconds); needs root"
	@echo "make sim SEED=.. HOURS=..  whole clusters on virtual time; the seed and the hours may be left out"
	@echo "make demo        1 GiB of real files in, two disks lost, repaired, two others lost, files back and compared"
	@echo "make demo-cluster  three nodes on this machine, each killed under load and back; every acknowledged byte compared"
	@echo "make bench-s3    our store and the peers that are running, interleaved, with ratios (docs/benchmarks.md)"
	@echo "make bench-three three nodes of ours beside the peers that survive the loss of one (docs/benchmarks.md)"
	@echo "make bench-limits  memory of many uploads, bytes on disk of small objects, pages of a long listing"
	@echo "make bench-codec the codec and its peers (ISA-L, reed-solomon-erasure, ...) on one core (docs/benchmarks/codec.md)"

setup:
	@scripts/setup build

setup-clients:
	@scripts/setup clients "$(HOLDFAST_CLIENTS)"

build: setup
	cargo build --workspace --bins

run: build
	@exec "$(BIN)/holdfast" server --data-dir "$(DATA)" --s3-listen "$(S3_LISTEN)" --admin-listen "$(ADMIN_LISTEN)"

test: format clippy unit e2e

format: setup
	cargo fmt --all --check

clippy: setup
	cargo clippy --workspace --all-targets -- -D warnings

# All three select the whole workspace: another selection would unite other features and compile dependencies twice.
unit: setup
	cargo test --workspace --lib --bins

setup-hosts:
	@scripts/setup hosts

e2e: build setup-clients setup-hosts
	cargo test --workspace --test '*' -- --test-threads=2

# The tests of whole clusters with SOAK seconds of load in each scenario instead of some.
SOAK ?= 60
soak: build setup-hosts
	HOLDFAST_SOAK_SECONDS=$(SOAK) cargo test --workspace --test 'cluster_*' -- --test-threads=1 --nocapture

# Without SEED from a seed that the clock names; without HOURS that seed alone.
sim: setup
	cargo build --workspace --bin holdfast-sim
	"$(BIN)/holdfast-sim" $(if $(SEED),--seed $(SEED)) --hours $(or $(HOURS),0)

demo: build setup-clients
	scripts/demo

demo-cluster: build setup-clients
	scripts/demo-cluster

bench: bench-s3 bench-limits

bench-s3: build
	bench/compare

bench-three: build
	bench/three-nodes

bench-limits: build
	bench/limits

bench-codec: setup
	@scripts/setup codec-peers
	bench/codec/run

clean-data:
	rm -rf "$(DATA)"
