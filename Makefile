# `make demo` and `make test` are all a newcomer needs; `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP_INSTALL := $(PYTHON) -m pip --disable-pip-version-check install --no-input
# One process more than there are cores: tests wait for the disk a lot. Files begin in the order that
# tests/conftest.py gives them; xdist's own puts those of few tests, which are the longest, last.
WORKERS = $(shell echo $$(($$(nproc) + 1)))
PARALLEL = --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
LOCKS := build run test lock

# The first Python that is new enough, asked only when the environment has to be made.
BASE_PYTHON = $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.NOTPARALLEL:
.PHONY: help demo test test-fast warm lint lock bench check-main-path check-wire check-book docs clean

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: warm ## set up, then the bundled day end to end
	@$(VENV)/bin/mirrorpoint demo

test: $(VENV)/.test warm debian-packages ## set up, then the whole test suite
	@$(PYTHON) -m pytest $(PARALLEL) $(ARGS)

test-fast: $(VENV)/.test warm ## the two-minute subset of the tests
	@$(PYTHON) -m pytest $(PARALLEL) -m "not slow" $(ARGS)

warm: $(VENV)/.run ## compile the kernels (once per machine and version)
	@$(VENV)/bin/mirrorpoint warm

lint: $(VENV)/.test ## style and types
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

bench: $(VENV)/.test warm ## the measurements, as ratios against peers and limits
	@$(PYTHON) -m tests.bench.wire $(ARGS)
	@$(PYTHON) -m tests.bench.start
	@$(PYTHON) -m tests.bench.recall

check-main-path: $(VENV)/.test warm debian-packages ## every figure asked of the main path, beside what was reached
	@env -u MAKEFLAGS $(PYTHON) -m tests.bench.check_main_path --with-tests $(ARGS)

check-wire: $(VENV)/.test warm debian-packages ## every figure asked of the wire, beside what was reached
	@env -u MAKEFLAGS $(PYTHON) -m tests.bench.check_wire $(ARGS)

check-book: $(VENV)/.test warm debian-packages ## every figure asked of the book, beside what was reached
	@env -u MAKEFLAGS $(PYTHON) -m tests.bench.check_book $(ARGS)

lock: $(VENV)/.made ## resolve the requirements anew (hashed, for every Python from 3.11 on)
	@$(PIP_INSTALL) --quiet --require-hashes -r requirements/lock.txt
	@for name in $(LOCKS); do \
	  case $$name in \
	    run) what="pyproject.toml" ;; \
	    test) what="pyproject.toml --group test --constraint requirements/run.txt" ;; \
	    *) what="--group $$name" ;; \
	  esac; \
	  echo "requirements/$$name.txt"; \
	  $(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	    --generate-hashes --no-emit-index-url --no-annotate --upgrade \
	    --custom-compile-command "make lock" $$what --output-file requirements/$$name.txt; \
	done
	@! grep -nE '://|index-url|find-links' requirements/*.txt

docs: $(VENV)/.test ## rewrite the pages that follow from the code
	@$(PYTHON) -m tests.tidy.pages

clean: ## remove the environment and what was built
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps below make a second run fast: each stands for an installation that was completed.

$(VENV)/.made:
	@if [ -z "$(BASE_PYTHON)" ]; then \
	  echo "Mirrorpoint needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true)." >&2; \
	  echo "On Debian 12 or Ubuntu 24.04 and newer: apt-get install python3 python3-venv" >&2; exit 1; \
	fi
	@if ! $(BASE_PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  deploy/install-debian-packages $(BASE_PYTHON)-venv; \
	fi
	@echo "Making a virtual environment in $(VENV) with $$($(BASE_PYTHON) --version)"
	@$(BASE_PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/build.txt requirements/run.txt pyproject.toml
	@echo "Installing the locked requirements (a first time: some 250 MB to fetch, mostly ClickHouse)"
	@$(PIP_INSTALL) $$([ -t 1 ] || echo --quiet) --require-hashes \
	  -r requirements/build.txt -r requirements/run.txt
	@$(PIP_INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@echo "Installing what the tests need"
	@$(PIP_INSTALL) $$([ -t 1 ] || echo --quiet) --require-hashes -r requirements/test.txt
	@touch $@

.PHONY: debian-packages
# Without the right to install, a laptop goes on: what needs the package is skipped, with a reason.
debian-packages:
	@deploy/install-debian-packages $$(sed 's/#.*//' tests/debian-packages.txt) \
	  || [ "$${CI:-}" != true ]
