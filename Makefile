# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
SOURCE ?=
CONFIG ?=
# Processes that run tests; many tests wait for servers, so one more than this has cores does no harm.
TESTERS ?= 3
PHOTOS ?= $(wildcard ../shared/data/clothing/images)

.DEFAULT_GOAL := help
.PHONY: help install demo dev stop test test-graph test-kill lint format bench-platform bench-sample bench-ingest drill-kills lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(INSTALLED) ## the environment in .venv, from the lock

$(INSTALLED): requirements.lock bootstrap.lock pyproject.toml
	@echo "Making the environment in .venv (about 6 GB, mostly torch; a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo "Python 3.11 or 3.12 is needed; name one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## the whole job on the sample catalogue, or on your images: make demo SOURCE=DIR [CONFIG=FILE]
	@$(BIN)/pipeline demo $(if $(SOURCE),--source "$(SOURCE)") $(if $(CONFIG),--config "$(CONFIG)")

dev: $(INSTALLED) ## the Dagster UI, the MLflow UI and the endpoints, on the project last used
	@$(BIN)/pipeline dev $(if $(CONFIG),--config "$(CONFIG)")

stop: $(INSTALLED) ## stop what demo and dev started
	@$(BIN)/pipeline stop $(if $(CONFIG),--config "$(CONFIG)")

test: lint ## lint, types and all tests but those of test-graph
	$(BIN)/pytest -n $(TESTERS) --dist loadfile --ignore=pipeline_project_tests/graph

test-graph: $(INSTALLED) ## the graph as engineers use it: through the real webserver and daemon
	$(BIN)/pytest pipeline_project_tests/graph pipeline_project_tests/defs

test-kill: $(INSTALLED) ## ingest killed with SIGKILL at 20 random moments: the same results, nothing lost or taken twice
	$(BIN)/pytest pipeline_project_tests/ingest/test_kills.py

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-platform: $(INSTALLED) ## the graph through Dagster against the same steps in a bare script
	$(BIN)/python -m benchmarks.platform

bench-sample: $(INSTALLED) ## how hard the sample catalogue is, on 10 seeds
	$(BIN)/python -m benchmarks.sample_difficulty

bench-ingest: $(INSTALLED) ## ingest against plain Pillow and the bare decoder, on photographs: make bench-ingest [PHOTOS=DIR]
	$(BIN)/python -m benchmarks.ingest $(if $(PHOTOS),--photos "$(PHOTOS)")

drill-kills: $(INSTALLED) ## SIGKILL at 20 random moments: the same results, and nothing left behind
	$(BIN)/python -m benchmarks.drill_kills

lock: ## resolve pyproject.toml anew (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet --upgrade -o requirements.lock
	printf 'uv\n' | uv pip compile - --constraint requirements.lock --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet -o bootstrap.lock
	uv pip compile pyproject.toml --extra s3 --constraint requirements.lock --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet -o k8s/serving.lock

clean: ## remove the environment and caches, but no data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
