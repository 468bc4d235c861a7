# Every target does its own set-up: Python 3.11+ and make are all it takes.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test check format torture bench lock clean
.DEFAULT_GOAL := run

## run: start the gateway on 127.0.0.1:4000
run: $(VENV)/run.stamp
	@$(BIN)/locavore serve $(ARGS)

## test: what CI runs: format, lint, types, import contracts, tests
test: check $(VENV)/node.stamp
	@$(BIN)/python -m pytest -n 2 --dist loadgroup tests

check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

## torture: soak and crash runs, many minutes
torture: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -m torture tests

## bench: the figures in docs/explain/performance.md
bench: $(VENV)/dev.stamp
	@$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Locavore needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing locked dependencies (once) ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(BIN)/python scripts/link_checkout.py
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@echo "Installing locked test dependencies (once) ..."
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/node.stamp: tests/clients/node/package-lock.json scripts/node_packages.py | $(VENV)/bin/python
	@$(BIN)/python scripts/node_packages.py
	@touch $@

## lock: write the lock files again
lock: | $(VENV)/bin/python
	@$(PIP) install uv
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 $(LOCKFLAGS) pyproject.toml -o requirements/run.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 --allow-unsafe $(LOCKFLAGS) requirements/dev.in -o requirements/dev.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
