# Everything a person does with this repository. `make help` lists it.
#
# What is up to date is not made again: cargo sees to Rust, stamp files inside the installed trees
# (node_modules, .venv) to the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

CARGO_DENY_VERSION := 0.20.2
# rust-version of Cargo.toml, checked by cargo itself; named here for the message only.
RUST_VERSION := 1.90

UI_MODULES := ui/node_modules/.installed
BROWSER_MODULES := tests/ui/node_modules/.installed
CLIENT_MODULES := tests/node/node_modules/.installed
VENV := tests/.venv/.installed
PYTHON := tests/.venv/bin/python
CARGO_DENY := .tools/bin/cargo-deny
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := .tools/bin/cargo-fuzz
RELEASE := target/release/holdfast
PEER ?= holdfast
# The end-to-end tests run the development binary: it is built from what `cargo test` compiled anyway,
# and keeps its overflow checks and debug assertions. E2E_PROFILE=release tests the other one.
E2E_PROFILE ?= debug
E2E_BINARY := $(CURDIR)/target/$(E2E_PROFILE)/holdfast

UI_SOURCES := $(shell find ui -path ui/node_modules -prune -o -path ui/dist -prune -o -type f -print 2>/dev/null)

# $(call need,COMMAND,PACKAGE): one clear sentence about a missing tool.
need = command -v $(1) >/dev/null || { echo "$(1) is missing: run 'make deps' (as root) or apt-get install $(2)" >&2; exit 1; }

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- run ------------------------------------------------------------------------------------------

.PHONY: run
run: demo ## Build everything and start the demo: node, simulated devices, dashboard

.PHONY: demo
demo: $(RELEASE) ## The same as run; ARGS="--ephemeral" passes options
	$(RELEASE) demo $(ARGS)

# Cargo knows best what is stale; it answers in a moment if nothing is.
.PHONY: $(RELEASE)
$(RELEASE): need-rust ui/dist/index.html
	cargo build --release --locked --bin holdfast

.PHONY: ui
ui: ui/dist/index.html ## Build the dashboard into ui/dist

ui/dist/index.html: $(UI_MODULES) $(UI_SOURCES)
	npm --prefix ui run build
	@touch $@

$(UI_MODULES): ui/package-lock.json | need-node
	npm --prefix ui ci --no-audit --no-fund
	@touch $@

# --- test -----------------------------------------------------------------------------------------

.PHONY: test
test: test-rust test-ui test-e2e test-browser ## All tests: Rust, dashboard, end to end with real clients, browser

.PHONY: test-rust
test-rust: need-rust ## Unit, property and integration tests of the workspace
	cargo test --workspace --locked

.PHONY: test-ui
test-ui: $(UI_MODULES) ## Unit tests of the dashboard
	npm --prefix ui test

.PHONY: test-e2e
test-e2e: e2e-binary $(VENV) need-clients ## The binary against real MQTT, Kafka and HTTP clients
	HOLDFAST_BIN=$(E2E_BINARY) $(PYTHON) -m pytest tests/e2e $(ARGS)

.PHONY: test-disk
test-disk: e2e-binary $(VENV) ## A disk that stalls, fails, is read-only (root: mounts a loop device)
	HOLDFAST_BIN=$(E2E_BINARY) HOLDFAST_DISK_TESTS=1 $(PYTHON) -m pytest tests/e2e/test_disk.py $(ARGS)

# PEER=kafka runs the same programs against Apache Kafka, PEER=both writes the table of differences.
.PHONY: compat
compat: $(if $(filter kafka,$(PEER)),,$(RELEASE)) $(VENV) $(CLIENT_MODULES) need-clients need-java ## Kafka's clients and tools against Holdfast; PEER=kafka, PEER=both; ARGS="streams" chooses
	benches/kafka/fetch.sh
	PEER=$(PEER) $(PYTHON) tests/compat/run.py $(ARGS)

# What CI runs: the development binary, held against what Kafka said when `make compat` ran last.
.PHONY: compat-quick
compat-quick: e2e-binary $(VENV) $(CLIENT_MODULES) need-clients need-java ## The programs of `make compat` that take less than a minute
	benches/kafka/fetch.sh
	HOLDFAST_BIN=$(E2E_BINARY) PEER=holdfast $(PYTHON) tests/compat/run.py --quick --jobs 3 $(ARGS)

$(CLIENT_MODULES): tests/node/package-lock.json | need-node
	npm --prefix tests/node ci --no-audit --no-fund
	@touch $@

.PHONY: test-browser
test-browser: e2e-binary $(BROWSER_MODULES) need-chromium ## The dashboard in a real browser
	npm --prefix tests/ui test
	HOLDFAST_BIN=$(E2E_BINARY) npm --prefix tests/ui run test:node

.PHONY: e2e-binary
e2e-binary: need-rust ui/dist/index.html
	cargo build --locked --bin holdfast $(if $(filter release,$(E2E_PROFILE)),--release)

$(VENV): tests/requirements.txt
	@$(call need,python3,python3)
	python3 -m venv --clear tests/.venv || { echo "python3 cannot make a virtual environment: run 'make deps' (as root) or apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(BROWSER_MODULES): tests/ui/package-lock.json | need-node
	npm --prefix tests/ui ci --no-audit --no-fund
	@touch $@

.PHONY: test-package
test-package: deb ## The .deb in a clean Debian under systemd (root, debootstrap)
	tests/package/run.sh

# --- lint -----------------------------------------------------------------------------------------

.PHONY: lint
lint: lint-rust lint-deps lint-ui ## Formatting, clippy, dependencies, dashboard types: warnings are errors

.PHONY: lint-rust
lint-rust: need-rust
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: lint-deps
lint-deps: cargo-deny
	$(CARGO_DENY) --all-features check --hide-inclusion-graph bans licenses sources
	@# The database of advisories is a git repository: a machine without a way to it cannot ask.
	@if said=$$($(CARGO_DENY) --all-features fetch db 2>&1); then \
		$(CARGO_DENY) --all-features check --disable-fetch advisories; \
	elif [ -n "$${REQUIRE_ADVISORIES:-}" ]; then \
		echo "$$said" >&2; exit 1; \
	else \
		echo "NOT CHECKED: security advisories, because their database cannot be fetched (REQUIRE_ADVISORIES=1 makes that an error)" >&2; \
	fi

# Built without optimisation: it runs for a second and would be optimised for minutes.
.PHONY: cargo-deny
cargo-deny: need-rust
	@if [ "$$($(CARGO_DENY) --version 2>/dev/null)" != "cargo-deny $(CARGO_DENY_VERSION)" ]; then \
		cargo install --debug --root .tools --locked cargo-deny@$(CARGO_DENY_VERSION); \
	fi

.PHONY: lint-ui
lint-ui: $(UI_MODULES)
	npm --prefix ui run check

# --- measure, package, attack ---------------------------------------------------------------------

# $(call bench-executable,NAME): builds a bench target and prints where it is.
bench-executable = $$(cargo bench --locked --bench $(1) --no-run --message-format=json \
	| jq -r 'select(.target.name? == "$(1)") | .executable // empty' | tail -n 1)

.PHONY: bench
bench: $(RELEASE) ## Measure: the log against the raw disk, start-up, memory, MQTT beside mosquitto, telemetry
	@$(call need,mosquitto,mosquitto)
	cargo bench --locked --package holdfast-storage --bench log -- batches records
	benches/node.py --holdfast $(RELEASE) --loader "$(call bench-executable,mqtt_load)"
	cargo bench --locked --bench telemetry
	cargo bench --locked --bench sign_in

.PHONY: bench-log
bench-log: need-rust ## Measure the log in all its parts against the bare disk; ARGS="seek fetch" chooses parts
	cargo bench --locked --package holdfast-storage --bench log -- $(ARGS)

# Histories of `make sim`; `make test` plays a thousand. SEED=n plays one alone.
HISTORIES ?= 100000
.PHONY: sim
sim: need-rust ## Play random histories of the log on a simulated disk, power cuts included; SEED=n plays one
	$(if $(SEED),HOLDFAST_SEED=$(SEED),HOLDFAST_HISTORIES=$(HISTORIES)) \
		cargo test --release --locked --package holdfast-storage --test sim -- --nocapture

KILLS ?= 200
.PHONY: crash
crash: e2e-binary $(VENV) ## Kill a loaded node KILLS times and look for everything it acknowledged
	HOLDFAST_KILLS=$(KILLS) HOLDFAST_BIN=$(E2E_BINARY) $(PYTHON) -m pytest tests/e2e/test_crash.py $(ARGS)

.PHONY: bench-kafka
bench-kafka: $(RELEASE) need-java ## Compare with Apache Kafka on this machine (Java 17, Maven); ARGS="--parts small,idle" chooses
	@$(call need,jq,jq)
	benches/kafka/run.sh --loader "$(call bench-executable,kafka_load)" $(ARGS)

.PHONY: deb
deb: need-rust ui/dist/index.html ## Build the Debian package into target/debian
	packaging/build-deb.sh

# Ends earlier after FRAMES_SECONDS. SEED=n repeats a run's frames, FRAME=n with it throws one of them
# alone, FILE=path what a run has kept.
FRAMES ?= 10000000
.PHONY: fuzz
fuzz: need-rust ## Throw FRAMES hostile frames at a Kafka door of its own; SEED=n FRAME=n throws one again
	FRAMES=$(FRAMES) FRAMES_SECONDS=$(FRAMES_SECONDS) SEED=$(SEED) FRAME=$(FRAME) EXCHANGE=$(EXCHANGE) FILE=$(FILE) \
		cargo run --locked --package holdfast-frames

# Seconds for each target.
FUZZ_SECONDS ?= 60
.PHONY: fuzz-codecs
fuzz-codecs: need-rust ## Fuzz what reads bytes from outside, guided by coverage, each target for FUZZ_SECONDS
	@if [ "$$($(CARGO_FUZZ) --version 2>/dev/null)" != "cargo-fuzz $(CARGO_FUZZ_VERSION)" ]; then \
		cargo install --root .tools --locked cargo-fuzz@$(CARGO_FUZZ_VERSION); \
	fi
	@# Without a sanitizer stable Rust is enough, and safe code has little for one to find.
	@for target in $$($(CARGO_FUZZ) list); do \
		$(CARGO_FUZZ) run --sanitizer none "$$target" -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# --- tools ----------------------------------------------------------------------------------------

DEBIAN_PACKAGES := build-essential ca-certificates chromium curl debootstrap git jq kcat mosquitto mosquitto-clients \
	pkg-config python3 python3-venv sqlite3

.PHONY: deps
deps: ## Install the Debian packages that the tests need (root or sudo); says what else is missing
	@missing=(); \
	for package in $(DEBIAN_PACKAGES); do \
		dpkg-query --show --showformat='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		command -v apt-get >/dev/null || { echo "no apt-get here: install by hand: $${missing[*]}" >&2; exit 1; }; \
		run=(); [ "$$(id -u)" = 0 ] || run=(sudo --non-interactive); \
		"$${run[@]}" true 2>/dev/null || { echo "not root and no sudo: run as root: apt-get install $${missing[*]}" >&2; exit 1; }; \
		"$${run[@]}" apt-get update --quiet --quiet; \
		"$${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends "$${missing[@]}"; \
	fi
	@$(MAKE) --no-print-directory need-rust need-node need-java need-clients need-chromium
	@echo "deps: everything is there"

.PHONY: need-rust
need-rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install $(RUST_VERSION) or newer with rustup (rustup.rs)" >&2; exit 1; }

.PHONY: need-node
need-node:
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "Node.js is missing: install version 20.19 or newer with npm (Debian's own may be older)" >&2; exit 1; }
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' \
		|| { echo "Node.js $$(node --version) is too old: version 20.19 or newer is needed" >&2; exit 1; }

.PHONY: need-java
need-java:
	@$(call need,java,openjdk-17-jdk-headless)
	@$(call need,javac,openjdk-17-jdk-headless)
	@$(call need,mvn,maven)

.PHONY: need-clients
need-clients:
	@$(call need,kcat,kcat)
	@$(call need,mosquitto_pub,mosquitto-clients)
	@$(call need,curl,curl)
	@$(call need,sqlite3,sqlite3)
	@$(call need,jq,jq)

.PHONY: need-chromium
need-chromium:
	@test -x "$${CHROMIUM:-/usr/bin/chromium}" || { echo "chromium is missing: run 'make deps' (as root) or apt-get install chromium" >&2; exit 1; }
