# Two commands: `make run` and `make test`. They need Python 3.11 or later and make, and prepare the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILED := build/compiled
HEADER := from os.path import exists; from sysconfig import get_path; exit(not exists(get_path("include") + "/Python.h"))
CAN_COMPILE := $(shell command -v cc >/dev/null && $(PYTHON) -c '$(HEADER)' && echo yes)
SEEDS ?= 300
RUNS ?= 1000000

.DEFAULT_GOAL := help
.PHONY: help setup run test check rules optional-rules unit contract sim e2e accounting fuzz compiled unit-compiled bench-gateway bench-planner bench-autoscale bench-laps bench-services lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make .venv with all that `run` and `test` need

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modelgrid needs Python 3.11 or later, this is " + sys.version)'
	@echo "setting up $(VENV) (half a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python requirements/install.py requirements/dev.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## serve on http://127.0.0.1:9000 with a default that fits this machine
	@exec $(BIN)/modelgrid serve

test: setup check optional-rules unit contract sim e2e unit-compiled ## everything, as CI does

check: setup ## style, types and the map of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

rules: setup ## the alert rules, their tests and the dashboard's queries, by promtool
	$(BIN)/python -m deploy.check

optional-rules: setup
	@$(BIN)/python -m deploy.check --if-any

unit contract: setup ## the fast tests
	$(BIN)/pytest -n auto tests/$@

sim: setup ## the planner against a world of faults: make sim SEEDS=10000
	$(BIN)/pytest -n auto tests/sim --seeds $(SEEDS)

e2e: setup ## the real daemon, real sockets, real engines
	$(BIN)/pytest -n 2 --dist loadfile tests/e2e

fuzz: setup ## hostile bytes into the gateway: make fuzz RUNS=1000000 SEED=1
	PYTHONPATH=tests $(BIN)/python -m fuzz.callers --runs $(RUNS) --seed $(or $(SEED),1)

accounting: setup ## every request accounted once, over 10,000 of them, while processes are killed: make accounting REQUESTS=100000
	ACCOUNTED_REQUESTS=$(or $(REQUESTS),10000) $(BIN)/pytest tests/e2e/test_accounting.py

ifdef CAN_COMPILE
compiled: $(COMPILED)/.ready ## build/compiled: the wheel as it is released, its request path compiled (a minute)
else
compiled:
	@rm -rf $(COMPILED)
	@echo "no C compiler, or no Python.h: the request path stays plain Python"
endif

$(COMPILED)/.ready: $(VENV)/.ready pyproject.toml hatch_build.py $(shell find src/modelgrid -name '*.py')
	@echo "compiling the request path (a minute) …"
	@rm -rf $(COMPILED)
	@MODELGRID_COMPILE=1 $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
	  --target $(COMPILED) .
	@touch $@

unit-compiled: setup compiled ## the request path's tests again, on what `compiled` has made
ifdef CAN_COMPILE
	MODELGRID_COMPILE=1 PYTHONPATH=$(CURDIR)/$(COMPILED) $(BIN)/pytest -n auto tests/unit/gateway
endif

bench-gateway: setup compiled ## what the gateway costs beside nginx and the routers of others: ARGS=--quick, ARGS=--help
	$(BIN)/python -m bench.gateway $(ARGS)

bench-planner: setup ## the planner beside first-come swapping, LRU and llama-swap's scheduler: ARGS=--real, ARGS=--help
	$(BIN)/python -m bench.planner $(ARGS)

bench-autoscale: setup ## the autoscaler beside fixed replicas and target-ongoing-requests scalers (four minutes)
	$(BIN)/python -m bench.autoscale $(ARGS)

bench-laps: setup ## what a lap of observe and plan takes, from 125 models to 2,000
	$(BIN)/python -m bench.laps $(ARGS)

bench-services: setup ## what services gain by batching, and cost over the bare library: ARGS=--help
	$(BIN)/python -m bench.services $(ARGS)

lock: setup ## pin the requirements anew, with hashes and without addresses
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --custom-compile-command 'make lock' --group dev pyproject.toml --output-file requirements/dev.txt $(LOCK)
	@for peer in bench/gateway/requirements/*.in; do \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-annotate --custom-compile-command 'make lock' $$peer --output-file $${peer%.in}.txt $(LOCK) || exit; done

clean: ## remove what setup and the tools made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
