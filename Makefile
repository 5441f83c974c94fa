# What can be done here: `make help`. Every environment is built on demand from the pinned files in requirements/.

PYTHON ?= python3
UV := .venv/bin/uv
BIN := .venv/bin
MATRIX := 3.1 3.2
PYTEST_ARGS ?=
# Two at once, each with an Airflow of its own and a module at a time: much of it is waiting for sockets and processes.
TOGETHER := -n 2 --dist loadscope
# Tests and processes started here must not pick up somebody's own Airflow or virtual environment.
unexport VIRTUAL_ENV AIRFLOW_HOME PYTHONPATH

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z][a-z0-9.-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: .venv/.ready ## Run the smallest example in a real Airflow against the emulator, and keep the film
	@$(BIN)/python -m dev.demo

.PHONY: ui
ui: .venv/.ready ## Leave Airflow's pages and the emulator up for clicking around, until Ctrl-C
	@$(BIN)/python -m dev.demo --ui

.PHONY: test
test: .venv/.ready ## Unit and integration tests on Airflow 3.3
	@echo "== unit and integration tests, Airflow 3.3"
	@$(BIN)/python -m pytest tests/unit tests/integration $(TOGETHER) $(PYTEST_ARGS)

.PHONY: test-system
test-system: .venv/.ready ## System tests: real Airflow processes (slow)
	@echo "== system tests, Airflow 3.3"
	@$(BIN)/python -m pytest tests/system --ignore tests/system/test_callbacks.py $(TOGETHER) $(PYTEST_ARGS)
	@echo "== system tests of callbacks, which are of seconds and so run alone"
	@$(BIN)/python -m pytest tests/system/test_callbacks.py $(PYTEST_ARGS)

.PHONY: fleet-ready
fleet-ready:
	@.ci/packages '/usr/lib/postgresql/*/bin/initdb,redis-server' postgresql redis-server

.PHONY: test-fleet
test-fleet: .venv/.ready fleet-ready ## A fleet on PostgreSQL, Celery and Redis, two of each process, killed and frozen
	@echo "== tests of a fleet, Airflow 3.3"
	@$(BIN)/python -m pytest tests/fleet $(PYTEST_ARGS)

.PHONY: test-browser
test-browser: .venv/.ready ## Airflow's pages in headless Chromium (SCREENSHOTS=docs renews the README's pictures)
	@echo "== browser tests, Airflow 3.3"
	@SCREENSHOTS="$(SCREENSHOTS)" $(BIN)/python -m pytest tests/browser $(PYTEST_ARGS)

.PHONY: test-storeless
test-storeless: $(MATRIX:%=test-storeless-%) ## System tests of what Airflow below 3.3 does without a store

.PHONY: $(MATRIX:%=test-storeless-%)
$(MATRIX:%=test-storeless-%): test-storeless-%: .venvs/%/.ready
	@echo "== system tests, Airflow $*"
	@.venvs/$*/bin/python -m pytest tests/system/test_storeless.py $(PYTEST_ARGS)

.PHONY: test-matrix
test-matrix: test $(MATRIX:%=test-%) ## Unit and integration tests on every supported Airflow

.PHONY: $(MATRIX:%=test-%)
$(MATRIX:%=test-%): test-%: .venvs/%/.ready
	@echo "== unit and integration tests, Airflow $*"
	@.venvs/$*/bin/python -m pytest tests/unit tests/integration $(TOGETHER) $(PYTEST_ARGS)

.PHONY: test-next
test-next: .venvs/next/.ready ## Unit and integration tests and the main job on Airflow's newest pre-release; not in .ci/run
	@echo "== unit and integration tests, $$(.venvs/next/bin/airflow version)"
	@.venvs/next/bin/python -m pytest tests/unit tests/integration $(TOGETHER) $(PYTEST_ARGS)
	@.venvs/next/bin/python -m pytest tests/system/test_main_job.py $(PYTEST_ARGS)

.PHONY: docs
docs: .venv/.ready ## The site, to docs/_build/html; a warning is an error, and nothing is fetched
	@echo "== docs"
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env -d docs/_build/doctrees docs docs/_build/html

.PHONY: lint
lint: .venv/.ready ## Ruff: rules and format
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: .venv/.ready ## Let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: .venv/.ready ## Mypy, strict
	@echo "== mypy"
	@$(BIN)/mypy

.PHONY: wheel-check
wheel-check: .venv/.ready ## Build the wheel, install it in a fresh environment, ask Airflow about it
	@echo "== wheel"
	@$(BIN)/python -m dev.wheel_check

.PHONY: bench
bench: .venv/.ready ## What it costs beside the HTTP provider, to docs/benchmarks.md (NAMES="imports queue", all by default)
	@$(BIN)/python -m dev.bench $(NAMES)

.PHONY: soak
soak: .venv/.ready ## 300 submits in any weather while processes die and freeze, to docs/soak.md (SOAK_ARGS="--submits 60 --seed 2")
	@$(BIN)/python -m dev.soak $(SOAK_ARGS)

.PHONY: soak-fleet
soak-fleet: .venv/.ready fleet-ready ## 1,000 submits on a fleet, in pieces: it goes on where it was left, to docs/soak-fleet.md (SOAK_ARGS="--minutes 60")
	@$(BIN)/python -m dev.soak.fleet $(SOAK_ARGS)

.PHONY: lock
lock: $(UV) ## Renew the pinned requirements (LOCK_ARGS=--upgrade for the newest)
	@for v in 3.3 $(MATRIX) next; do \
	  echo "Locking requirements/airflow-$$v.txt"; \
	  $(UV) pip compile --quiet --universal --fork-strategy fewest \
	    --python-version $$([ $$v = next ] && echo 3.11 || echo 3.10) \
	    --no-emit-index-url --no-annotate --custom-compile-command 'make lock' $(LOCK_ARGS) \
	    pyproject.toml --extra emulator requirements/airflow-$$v.in --output-file requirements/airflow-$$v.txt \
	    || exit 1; \
	done

.PHONY: clean
clean: ## Remove environments, caches and what demo and tests left
	rm -rf .venv .venvs .demo .bench dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The package goes in editable, without its dependencies (they are pinned) and without build isolation (so is hatchling).
define install
@$(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python -r requirements/airflow-$(2).txt
@$(UV) pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation -e .
@touch $(1)/.ready
endef

$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	@echo "Preparing .venv"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	@touch $@

.venv/.ready: $(UV) requirements/airflow-3.3.txt pyproject.toml
	@echo "Installing Airflow 3.3 in .venv; the first time this takes a minute or two"
	$(call install,.venv,3.3)

.venvs/%/.ready: $(UV) requirements/airflow-%.txt pyproject.toml
	@echo "Installing Airflow $* in .venvs/$*"
	@test -x .venvs/$*/bin/python || $(UV) venv --quiet --python $(BIN)/python .venvs/$*
	$(call install,.venvs/$*,$*)
