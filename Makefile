# What a person does with a fresh clone. Needs Python 3.11 or newer and make; everything else goes into .venv.
# The tests and the scenario hyperv-azure also need Node.js with npm, for Azurite.

SCENARIO ?= lab
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE := simulation/azure/node
AZURITE := $(NODE)/node_modules/.ready
BENCHES := $(basename $(notdir $(wildcard bench/bench_*.py)))

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit lint format bench clean

help: ## Say what there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with leeward and its tools (the other targets do it when needed)

$(READY): pyproject.toml constraints.txt requirements-embedded.txt requirements-test.txt .ci/make-venv
	@PYTHON="$(PYTHON)" sh .ci/make-venv
	@touch $@

$(AZURITE): $(NODE)/package.json $(NODE)/package-lock.json .ci/make-azurite
	@sh .ci/make-azurite
	@touch $@

demo: $(READY) $(if $(filter hyperv-azure,$(SCENARIO)),$(AZURITE)) ## Protect, test, fail over and fail back a small application: make demo SCENARIO=lab
	@$(BIN)/leeward demo --scenario $(SCENARIO)

test: lint unit ## Everything a change must pass: lint, then all tests

# With CI set, pytest spends minutes on the difference of two disk images that a failed comparison would show.
PYTEST := env -u CI -u BUILD_NUMBER $(BIN)/pytest

# Most tests wait for servers as long as they compute, so there are more processes than cores. Tests that start whole
# engines come after the others: those of one file share an engine, and files begin in the order of their names (by
# default the files with fewest tests, which take the longest, would come last).
unit: $(READY) $(AZURITE)
	$(PYTEST) -n $$(($(JOBS) + 2)) -m "not e2e and not chaos" --durations=15
	$(PYTEST) -n $$(($(JOBS) + 1)) --dist loadfile --no-loadscope-reorder -m "e2e or chaos" --durations=15

lint: $(READY) ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure against peers and limits: docs/performance.md
	@set -e; for bench in $(BENCHES); do echo "== $$bench"; $(BIN)/python -m bench.$$bench; done
	@$(BIN)/python -m bench.page

clean: ## Remove .venv, caches and build leftovers; leeward's data directory .leeward stays
	rm -rf $(VENV) $(NODE)/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
