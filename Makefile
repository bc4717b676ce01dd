# What a person types. Everything else is cargo; `make help` lists what is here.

# Simulator: how many seeds. Failover soak: how many kills of the primary.
SEEDS ?= 10000
KILLS ?= 200
# Fault campaign: how many faults in each set-up, in which set-ups, from which seed on.
FAULTS ?= 300
SETUPS ?= two-in-sync,three-in-sync,three-in-quorum,three-in-async
SEED   ?= 1
# The acceptance scenarios: which of them, and how far they go.
SCENARIOS ?= all
SCENARIOS_ARGS ?= --long
# Failover benchmark: how many runs each median is taken over.
RUNS  ?= 10
# The same faults done to other systems: how many runs of each, and options such as PEERS_ARGS='--systems pgdock-*'.
PEERS_RUNS ?= 3
PEERS_ARGS ?=
PEERS_TESTS = PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m unittest discover -q -s benches/peers -t benches/peers

CARGO  ?= cargo
PYTHON ?= python3
# PostgreSQL's programs, where they are in none of the usual places: make test PGDOCK_BIN_DIR=/opt/pgsql/bin
ifneq ($(PGDOCK_BIN_DIR),)
export PGDOCK_BIN_DIR
export PATH := $(PGDOCK_BIN_DIR):$(PATH)
endif
# Options for `pgdock demo`, such as DEMO_ARGS=--keep.
DEMO_ARGS ?=
# Options for the test runner, such as TEST_ARGS=decide.
TEST_ARGS ?=

# The long runs, one variable each, so that one can be replaced: make soak SOAK_REAL=true
SOAK_SIMULATED ?= $(CARGO) test --locked --release -p pgdock-tests --test simulation -- --seeds $(SEEDS)
SOAK_MODEL     ?= $(CARGO) test --locked --release -p pgdock-model --test model -- --deep
SOAK_REAL      ?= $(CARGO) run --locked --release -p pgdock-benches --bin soak -- --kills $(KILLS)
SOAK_FAULTS    ?= $(CARGO) test --locked -p pgdock-tests --test faults -- --total $(FAULTS) --setup $(SETUPS) --seed $(SEED)
SOAK_SCENARIOS ?= $(CARGO) test --locked -p pgdock-tests --test faults -- --scenario $(SCENARIOS) $(SCENARIOS_ARGS)
BENCH          ?= $(CARGO) run --locked --release -p pgdock-benches --bin failover_time -- --runs $(RUNS)

# A test that needs PostgreSQL and finds none says so and passes; under `required` it fails.
export PGDOCK_REAL ?= required
# Test programs that have a main of their own (`harness = false`), which cargo-nextest cannot list.
HARNESSLESS := $(shell awk -F '"' '/^\[/ { name = "" } /^name = / { name = $$2 } /^harness = false/ { print name }' tests/Cargo.toml tests/model/Cargo.toml)

NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests demo demo-docker test outside bench bench-clone bench-peers soak scenarios doc fmt lint deny check

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Find PostgreSQL and what the build needs, or install it where apt can
	@scripts/setup.sh

setup-tests:
	@scripts/setup.sh --tests

demo: setup ## Three nodes on this machine: failover, rejoin, switchover, with real PostgreSQL
	$(CARGO) build --locked -p pgdock-cli
	$(CARGO) run --locked --quiet -p pgdock-cli -- demo $(DEMO_ARGS)

demo-docker: setup-tests ## Three containers as three servers: every command line of docs/from-the-article.md, in order
	$(CARGO) build --locked -p pgdock-cli
	$(CARGO) build --locked -p pgdock-testkit --bin s3-test-server
	scripts/demo-docker.sh $(DEMO_ARGS)

test: setup-tests ## All tests, those on real PostgreSQL among them
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --locked --workspace $(if $(HARNESSLESS),-E 'not ($(foreach t,$(HARNESSLESS),binary(=$(t)) +) none())') $(TEST_ARGS)
	$(foreach t,$(HARNESSLESS),$(CARGO) test --locked --workspace --test $(t) &&) true
	$(CARGO) test --locked --workspace --doc
else
	$(CARGO) test --locked --workspace $(TEST_ARGS)
endif
	@if command -v $(PYTHON) >/dev/null; then $(PEERS_TESTS); else echo 'skipped: the tests of benches/peers need python3'; fi

outside: ## The example crate that is in no workspace of ours: its plugins pass the suites that we ship
	cp Cargo.lock examples/outside-plugins/Cargo.lock
	CARGO_TARGET_DIR=$(CURDIR)/target $(CARGO) test --manifest-path examples/outside-plugins/Cargo.toml

bench: setup ## Measure failover and switchover on real PostgreSQL: RUNS=10
	$(CARGO) build --locked --release -p pgdock-cli
	$(BENCH)

bench-clone: setup ## Measure copies of the leader beside pg_basebackup alone
	$(CARGO) run --locked --release -p pgdock-benches --bin clone

bench-peers: ## The same faults done to Patroni, repmgr and pgdock, in containers: PEERS_RUNS=3
	$(PEERS_TESTS)
	$(PYTHON) benches/peers/bench.py plan --runs $(PEERS_RUNS) $(PEERS_ARGS)
	$(CARGO) build --locked --release -p pgdock-cli
	$(CARGO) build --locked --release -p pgdock-testkit --bin s3-test-server
	$(PYTHON) benches/peers/bench.py run --runs $(PEERS_RUNS) $(PEERS_ARGS)
	$(PYTHON) benches/peers/bench.py table

soak: setup-tests ## Long runs: SEEDS=10000 simulated worlds, the model within wide bounds, KILLS=200 real failovers, SCENARIOS, FAULTS=300 drawn faults in each of SETUPS
	$(SOAK_SIMULATED)
	$(SOAK_MODEL)
	$(CARGO) build --locked --release -p pgdock-cli
	$(SOAK_REAL)
	$(CARGO) build --locked -p pgdock-cli
	$(SOAK_SCENARIOS)
	$(SOAK_FAULTS)

scenarios: setup-tests ## The acceptance scenarios at full length, a quarter of an hour: SCENARIOS=disk-full,primary-killed
	$(CARGO) build --locked -p pgdock-cli
	$(SOAK_SCENARIOS)

doc: ## Build the API documentation and check the rest; a broken link is an error
	@scripts/check-docs.sh
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Formatting, units and clippy, with warnings denied; changes nothing
	@scripts/check-units.sh
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings

deny: ## Licences, banned crates and sources of the dependencies (needs cargo-deny)
	$(CARGO) deny --locked check bans licenses sources

check: lint doc test ## What a change must pass before it is proposed
