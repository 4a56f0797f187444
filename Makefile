# Everything a developer or a new user runs. Needs Python 3.11 or newer, make and git; the rest goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STARTED := $(shell date +%s)
DAILY := $(BIN)/python -m pytest --ignore=tests/benchmarks -m "not models"

# Otherwise each of the thousands of processes that tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-thorough test-benchmarks test-ray test-attacks lint format bench bench-profiling bench-search bench-matching bench-estimates bench-serving bench-links bench-suite docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Circinus needs Python 3.11 or newer; call make PYTHON=python3.11 ..."'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing packages into $(VENV), which takes some minutes"
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[examples,metrics,ray,report]' --group dev
	@touch $@

demo: $(READY)  ## profile, plan, apply and load the meeting pipeline; one table at the end
	DEMO_STARTED=$(STARTED) $(BIN)/python -m benchmarks demo

test: $(READY)  ## the daily test suite, in two processes
	$(DAILY) --numprocesses 2 --dist worksteal

test-quick: $(READY)  ## what a commit is held against: a tenth of the random cases, no slow tests
	CIRCINUS_TEST_LEVEL=quick $(DAILY) --numprocesses 2 --dist worksteal

test-thorough: $(READY)  ## every seed and example, and the tests of benchmarks and models
	CIRCINUS_TEST_LEVEL=thorough $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-benchmarks: $(READY)  ## tests of the benchmarks and of the examples' models
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/benchmarks tests/examples

test-ray: $(READY)  ## all tests of the engine and of profiling on a Ray cluster on this machine, some minutes
	CIRCINUS_TEST_LEVEL=thorough $(BIN)/python -m pytest tests/serving/ray tests/cli/test_profile_on_ray.py

test-attacks: $(READY)  ## hostile files, specifications, requests and messages; some minutes
	$(BIN)/python -m benchmarks hardening --quick --strict --only files specifications http socket

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-profiling: $(READY)  ## how little profiling measures; results in benchmarks/results
	$(BIN)/python -m benchmarks profiling

bench-search: $(READY)  ## the search for one query's plan against earlier methods; results in benchmarks/results
	$(BIN)/python -m benchmarks search

bench-matching: $(READY)  ## many queries matched by prices against other planners; results in benchmarks/results
	$(BIN)/python -m benchmarks matching

bench-estimates: $(READY)  ## accuracy of estimates: closed forms, simulations, local engine; results in benchmarks/results
	$(BIN)/python -m benchmarks estimates

bench-serving: $(READY)  ## what engines add; plan changes, bursts, crashes, drift; results in benchmarks/results
	$(BIN)/python -m benchmarks serving

bench-suite: $(READY)  ## duration and branch coverage of the test suite, here and before; an hour
	$(BIN)/python -m benchmarks suite

bench-links: $(READY)  ## plans over real, shaped links between three sites; needs root and iproute2, or is skipped
	$(BIN)/python -m benchmarks links || [ $$? = 3 ]

bench: $(READY)  ## every benchmark; results in benchmarks/results
	$(BIN)/python -m benchmarks demo --fresh --keep
	for name in $$($(BIN)/python -m benchmarks | sed 's/ .*//;/^demo$$/d'); do $(BIN)/python -m benchmarks $$name || [ $$? = 3 ] || exit 1; done
	$(BIN)/python -m benchmarks --readme

docs: $(READY)  ## the documentation, into build/docs
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "open build/docs/index.html"

format: $(READY)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what these targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist site
