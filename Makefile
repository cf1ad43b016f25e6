# Everything runs in .venv, built once from the lock file; a second call is fast.
#   make demo      a private release of real data, in build/demo
#   make test      what every change must pass (no servers, no root)
#   make test-variants  the same tests on other kinds of jobs, layouts and faults
#   make test-docs the commands and code of the docs
#   make test-all  everything; what needs more than this machine has skips with its reason
#   make test-external  object stores and clusters, which tests/external/install_*.sh install first
#   make docs      the documentation site in build/site, with its notebooks run
#   make sbom      a bill of materials of the lock file, build/sbom.json
#   make fuzz      damaged input for a minute; FUZZ_SECONDS=3600 for longer
#   make lint | bench | data | clean
# PYTHON=/path/to/python3.11 chooses the interpreter.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo docs test test-variants test-docs test-external test-all lint bench data sbom fuzz clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.dpgmm-installed
DOCS_STAMP := $(VENV)/.dpgmm-docs-installed
# One thread per process: pytest runs several, and results must not depend on it anyway.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
# Tests start hundreds of interpreters: none compiles again what another has compiled.
BYTECODE := PYTHONDONTWRITEBYTECODE=
PIP := $(BYTECODE) $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST := $(ONE_THREAD) $(BYTECODE) $(BIN)/python -m pytest
IMPORTED := distributed, dpgmm_dist.artifact.report, dpgmm_dist.cli.main, \
  dpgmm_dist.engine.cluster, dpgmm_dist.pipeline.release
JOBS ?= 2
FUZZ_SECONDS ?= 60
QUICK := not slow and not system_external
# A file stays in one process, which shares what its fixtures make. Small files come last.
BY_FILE := --dist loadfile --no-loadscope-reorder

help:
	@sed -n '1,12s/^# \{0,1\}//p' Makefile

# The pip of the lock comes first: an older one takes twice as long. Most of what is installed is
# never imported, so nothing is compiled but what every command imports.
$(STAMP): requirements.lock pyproject.toml
	@set -euo pipefail; \
	python="$(PYTHON)"; \
	for candidate in python3.11 python3.12 python3.13 python3 python; do \
	  [ -z "$$python" ] || break; \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	    >/dev/null 2>&1; then python="$$candidate"; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11 or newer with venv found; install it (Debian: python3.11-venv)" \
	    "or say make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV); \
	sed -n '/^pip==/,/[^\\]$$/p' requirements.lock > $(VENV)/pip.lock; \
	$(PIP) install --no-compile --require-hashes -r $(VENV)/pip.lock; \
	$(PIP) install --no-compile --require-hashes -r requirements.lock; \
	PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --editable .; \
	$(BYTECODE) $(BIN)/python -c "import $(IMPORTED)"; \
	touch $@

$(DOCS_STAMP): $(STAMP) requirements-docs.lock
	$(PIP) install -r requirements-docs.lock
	touch $@

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash jobs/demo.sh

test: $(STAMP)
	$(PYTEST) -n $(JOBS) $(BY_FILE) --ignore tests/external -m "$(QUICK) and not variant"

# Tests of make test on other kinds of jobs, layouts and faults.
test-variants: $(STAMP)
	$(PYTEST) -n $(JOBS) $(BY_FILE) --ignore tests/external -m "$(QUICK) and variant"

# The rest of this file is in make test.
test-docs: $(STAMP)
	$(PYTEST) -n $(JOBS) -m "slow and not system_external" tests/system/test_docs.py

# mkdocs.yml is strict: a warning ends the build.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(ONE_THREAD) $(BIN)/python -m mkdocs build --quiet
	$(PYTEST) -n 0 tests/system/test_site.py

# What cannot be installed here (no root, no npm) skips with its reason.
test-external: $(STAMP)
	@set -e; for script in tests/external/install_*.sh; do \
	  PYTHON=$(CURDIR)/$(BIN)/python bash "$$script"; done
	$(PYTEST) -n $(JOBS) $(BY_FILE) -m "not slow" tests/external

test-all: $(STAMP)
	$(PYTEST) -n $(JOBS) $(BY_FILE)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)
	$(BIN)/python jobs/benchmarks/throughput.py

fuzz: $(STAMP)
	$(ONE_THREAD) $(BIN)/python jobs/fuzz.py --seconds $(FUZZ_SECONDS) --seed 1

sbom: $(STAMP)
	$(BIN)/python jobs/sbom.py

data: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash jobs/data/build.sh

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
