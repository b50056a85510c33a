# Every command makes what it needs: a machine with Python (3.11 or newer), its venv module and make
# is enough.
#
#   make demo    the main job, against your Ollama server or the bundled fake one
#   make test    the tests
#   make soak    a minute of cancels and faults at random, and five million texts
#   make test-ray   the tests with Ray Data, in an environment of its own
#   make check   ruff, mypy and basedpyright
#   make bench   CPU time beside other clients', in one run; writes docs/bench.md

PYTHON ?= python3
VENV ?= .venv
RAY ?= .venv-ray
BACKEND ?= trio
BIN := $(VENV)/bin
# The stamp is newer than the files that say what the environment holds.
STAMP := $(VENV)/.ollama-sc-ready

.PHONY: help demo test soak test-ray check bench format clean

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ollama-sc needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@echo "==> Making the virtual environment in $(VENV) (once; a minute or so)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --editable . --group dev
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python examples/demo.py --backend $(BACKEND)

test: $(STAMP)
	@echo "==> Running the tests on trio and asyncio, on every core"
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

soak: $(STAMP)
	@echo "==> A minute of cancels, aborts and faults at random, then five million texts, on trio and on asyncio"
	@SOAK_SECONDS=$${SOAK_SECONDS:-60} SOAK_TEXTS=$${SOAK_TEXTS:-5_000_000} \
		$(BIN)/python -m pytest tests/test_soak.py tests/test_soak_embedding.py -rP -n 2 $(ARGS)

test-ray: $(RAY)/.ollama-sc-ready
	@echo "==> Running the tests with Ray Data: two actors, two servers, one of them killed"
	@RAY_USAGE_STATS_ENABLED=0 $(RAY)/bin/python -m pytest tests/ray $(ARGS)

$(RAY)/.ollama-sc-ready: pyproject.toml
	@echo "==> Making the virtual environment in $(RAY) (once; some minutes)"
	@test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	@$(RAY)/bin/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
	@$(RAY)/bin/python -m pip --quiet --disable-pip-version-check install --editable . --group ray
	@touch $@

check: $(STAMP)
	@echo "==> ruff (lint, format), mypy strict, basedpyright strict"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/basedpyright

bench: $(STAMP)
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --group bench
	@$(BIN)/python -m benchmarks $(ARGS)

format: $(STAMP)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(RAY) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
