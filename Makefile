# Everything a contributor runs. `make` alone lists it.
# Works with GNU Make 3.81 (macOS): nothing here may need a newer one.

PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUNTIME := $(VENV)/runtime-is-installed
DEV := $(VENV)/dev-is-installed
CHART := .chart
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
SEEDS ?= 2000
LOCKS := requirements.lock requirements-dev.lock requirements-build.lock

.DEFAULT_GOAL := help
.PHONY: help demo test test-peers test-launchdarkly simulate mutants chaos soak explore check format bench schema lock clean mutation screenshots image-test chart-test

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## Watch one rollout complete and one be killed (ARGS="--fast --exit")
	@$(BIN)/rampart demo $(ARGS)

test: $(DEV) ## Run all tests that need nothing from outside this repository
	$(BIN)/python -m pytest -n 3 --dist worksteal --ignore=tests/peers --ignore=tests/image --ignore=tests/chart $(ARGS)

test-peers: $(DEV) ## Install Prometheus, Chromium, SDKs and the like if missing; run the tests that need them
	tests/peers/install.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/peers $(ARGS)

chart-test: $(DEV) $(CHART)/is-installed ## Render the Helm chart with Helm itself (400 MB on disk, fetched once); check every object
	$(BIN)/python -m pytest tests/chart $(ARGS)

test-launchdarkly: $(DEV) ## Run the contract of providers on a live LaunchDarkly account (docs/providers/launchdarkly.md)
	$(BIN)/python -m pytest tests/live/launchdarkly.py $(ARGS)

screenshots: $(DEV) ## Take the pictures of docs/screenshots from a real server (ARGS="--only phone")
	@command -v chromium >/dev/null || { echo "make screenshots needs Chromium: tests/peers/install.sh"; exit 1; }
	$(BIN)/python -m tests.peers.screenshots $(ARGS)

image-test: $(DEV) ## Build the container image without a network and run it read-only (as root, on Debian)
	tests/image/build.sh
	$(BIN)/python -m pytest tests/image $(ARGS)

chaos: $(DEV) ## Half an hour of faults on three real replicas (ARGS="--seed 7 --faults 100"; --help)
	$(BIN)/python -m tests.chaos $(ARGS)

soak: $(DEV) ## 500 rollouts under mild faults for 45 min: does memory stay flat (ARGS="--minutes 120")
	$(BIN)/python -m tests.chaos.soak --minutes 30 --rollouts 500 $(ARGS)

simulate: $(DEV) ## Three replicas of the engine under seeded faults (SEEDS=2000; ARGS="--races" or "--seed 7")
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

mutants: $(DEV) ## Plant known bugs one after the other and see that each is noticed
	$(BIN)/python -m tests.mutants $(ARGS)

explore: $(DEV) ## Visit every interleaving of a small model of several replicas (ARGS="--bugs"; --help)
	$(BIN)/python -m tests.simulation.exhaustive $(ARGS)

check: $(DEV) ## Everything CI runs: format, lint, types, import contracts, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(MAKE) test
	$(MAKE) simulate
	$(MAKE) simulate SEEDS=500 ARGS=--races
	$(MAKE) test-peers

format: $(DEV) ## Format the code and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## Run the benchmarks, each beside its floor
	@for file in bench/bench_*.py; do name=$${file#bench/}; echo "== $${name%.py}"; \
	  $(BIN)/python -m bench.$${name%.py} $(ARGS) || exit 1; done

mutation: $(DEV) ## Break the logic on purpose and see which breaks no test notices (docs/mutation.md)
	$(BIN)/mutmut run --max-children 1 $(ARGS)
	$(BIN)/mutmut results

schema: $(DEV) ## Regenerate docs/schema, docs/lint.md, docs/cli.md, docs/state-machine.md and the chart's schema
	$(BIN)/rampart schema --write
	$(BIN)/rampart lint --rules -o markdown > docs/lint.md
	$(BIN)/rampart help markdown > docs/cli.md
	$(BIN)/python -c "from controller.domain.diagram import state_diagram; print(state_diagram(), end='')" > docs/state-machine.md
	$(BIN)/python -m tests.chart.settings_schema

lock: ## Pin all dependencies anew, with hashes (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/"; exit 1; }
	$(COMPILE) --upgrade pyproject.toml --extra dev --output-file requirements-dev.lock
	$(COMPILE) --upgrade pyproject.toml --constraint requirements-dev.lock --output-file requirements.lock
	echo hatchling | $(COMPILE) --upgrade - --no-annotate --constraint requirements-dev.lock --output-file requirements-build.lock
	@if grep -nE '://|^ *-(-index-url|-extra-index-url|-find-links|i |f )' $(LOCKS); then \
	  echo "A lock file holds an address (above): the hashes must be enough."; exit 1; fi

clean: ## Remove the environment and all caches; never your data
	rm -rf $(VENV) $(CHART) .image .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. Every package comes from a lock file and is checked against its hash.

$(RUNTIME): requirements.lock requirements-build.lock pyproject.toml
	@test -n "$(PYTHON)" || { \
	  echo "Rampart needs Python 3.11 or newer with its venv module, and found none."; \
	  echo "Debian, Ubuntu: apt install python3 python3-venv    macOS: brew install python@3.13"; \
	  echo "Installed elsewhere? make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing into $(VENV) with $(PYTHON); this happens once."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@$(PIP) install --quiet --require-hashes -r requirements-build.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	@echo "Installing the tools for development into $(VENV); this happens once."
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

# Helm's library and Kubernetes' schemas, apart from all else: nothing but the tests of the chart needs them.
$(CHART)/is-installed: tests/chart/requirements.lock
	@echo "Installing helm-python-sdk and kubernetes-validate from PyPI into $(CHART) (about 400 MB); this happens once."
	@$(PYTHON) -m venv --clear $(CHART)
	@$(CHART)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<
	@touch $@
