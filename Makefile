# Every command makes what it needs: a machine with Python (3.11 or newer), its venv module and make
# is enough.
#
#   make demo       the main job on one screen, in an environment of its own
#   make test       the tests
#   make soak       cancels and faults at random, also through a proxy that
#                   breaks what passes, five million texts, files of 512 MiB,
#                   and then all tests in their long form, 200 kills of the
#                   command among them
#   make coverage   the tests, and which of the library's branches they take
#   make test-ray   the tests with Ray Data, in an environment of its own
#   make test-browser  the tests in a headless Chromium, in a page and in a
#                   worker; installs Chromium by apt, Pyodide by npm
#   make docs       the site, into docs/_build/html, offline but for the
#                   packages that build it; a warning is an error
#   make check      zizmor, ruff, mypy and basedpyright
#   make bench      CPU time beside other clients', in one run; writes
#                   docs/bench.md
#   make format     ruff's fixes and its format
#   make clean      removes all of these environments, and caches

PYTHON ?= python3
VENV ?= .venv
DEMO ?= .venv-demo
RAY ?= .venv-ray
BROWSER ?= .browser
DOCS ?= .venv-docs
BACKEND ?= trio
BIN := $(VENV)/bin
# The stamp is newer than the files that say what the environment holds.
STAMP := $(VENV)/.ollama-sc-ready

PIP := -m pip --disable-pip-version-check

# The tests start some hundreds of processes, whose imports take twice as long without bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test soak coverage test-ray browser test-browser docs check bench format clean

help:
	@sed -n 's/^#   //p' Makefile

define need-python
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "ollama-sc needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
endef

$(STAMP): pyproject.toml
	$(need-python)
	@echo "==> Making the virtual environment in $(VENV) (once; a minute or so)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) --quiet install --upgrade 'pip>=25.1'
	@$(BIN)/python $(PIP) --quiet install --editable . --group dev
	@touch $(STAMP)

demo: $(DEMO)/.ollama-sc-ready
	@$(DEMO)/bin/python -m ollama_sc.demo --backend $(BACKEND) $(ARGS)

# pip says what it fetches; its exit status passes sed by.
$(DEMO)/.ollama-sc-ready: pyproject.toml
	$(need-python)
	@echo "==> Making the virtual environment in $(DEMO) (once; 40 MB, some 15 seconds)"
	@echo "    an empty environment"
	@$(PYTHON) -m venv --clear $(DEMO)
	@{ $(DEMO)/bin/python $(PIP) install --no-compile --progress-bar off --editable '.[demo]'; \
		echo $$? >$(DEMO)/status; } | sed -n \
		-e 's/^ *Installing build dependencies.*started/    what builds the package/p' \
		-e 's/^Collecting \([^ ]*\).*/    \1/p'
	@exit $$(cat $(DEMO)/status)
	@touch $@

test: $(STAMP)
	@echo "==> Running the tests on trio and asyncio, on every core"
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

soak: $(STAMP)
	@echo "==> Cancels, aborts and faults at random and through a faulty proxy, a minute for each loop and variant; five million texts"
	@SOAK_SECONDS=$${SOAK_SECONDS:-60} SOAK_TEXTS=$${SOAK_TEXTS:-5_000_000} \
		SOAK_MIB=$${SOAK_MIB:-512} \
		$(BIN)/python -m pytest tests/soak -rP -n 2 $(ARGS)
	@echo "==> All tests in their long form: asyncio in debug mode, 200 kills, uploads of 2 GiB"
	@SOAK=1 $(BIN)/python -m pytest -n auto --dist worksteal --timeout 600 $(ARGS)

coverage: $(STAMP)
	@echo "==> Running the tests, and counting the branches of the library that they take"
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m coverage run -m pytest -n auto --dist worksteal --timeout 300 $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

test-ray: $(RAY)/.ollama-sc-ready
	@echo "==> Running the tests with Ray Data: two actors, two servers, one of them killed"
	@RAY_USAGE_STATS_ENABLED=0 $(RAY)/bin/python -m pytest tests/ray $(ARGS)

$(RAY)/.ollama-sc-ready: pyproject.toml
	@echo "==> Making the virtual environment in $(RAY) (once; some minutes)"
	@test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	@$(RAY)/bin/python $(PIP) --quiet install --upgrade 'pip>=25.1'
	@$(RAY)/bin/python $(PIP) --quiet install --editable . --group ray
	@touch $@

browser: $(STAMP)
	@$(BIN)/python tests/browser/install.py $(BROWSER)

test-browser: browser
	@echo "==> Running the tests in a headless Chromium, in a page and in a worker"
	@BROWSER_FOLDER=$(BROWSER) $(BIN)/python -m pytest tests/browser $(ARGS)

docs: $(DOCS)/.ollama-sc-ready
	@echo "==> Building the site in docs/_build/html"
	@$(DOCS)/bin/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet \
		docs docs/_build/html $(ARGS)
	@! grep -rE '<(script|img|link|source)[^>]* (src|href)="https?:' docs/_build/html --include='*.html' \
		|| { echo "a page would fetch that from elsewhere"; exit 1; }

$(DOCS)/.ollama-sc-ready: pyproject.toml
	$(need-python)
	@echo "==> Making the virtual environment in $(DOCS) (once; half a minute)"
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python $(PIP) --quiet install --upgrade 'pip>=25.1'
	@$(DOCS)/bin/python $(PIP) --quiet install --editable '.[cli,demo,starlette,telemetry]' --group docs
	@touch $@

check: $(STAMP)
	@echo "==> zizmor, ruff (lint, format), mypy strict, basedpyright strict"
	@$(BIN)/zizmor --offline --pedantic --quiet .github/workflows
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/basedpyright

bench: $(STAMP)
	@$(BIN)/python $(PIP) --quiet install --group bench
	@$(BIN)/python -m benchmarks $(ARGS)

format: $(STAMP)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(DEMO) $(RAY) $(BROWSER) $(DOCS) docs/_build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
