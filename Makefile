# From a fresh machine to a finished job. Needs Python 3.11+, make, bash and a package index.

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint docs clean

# The first of these that is new enough makes .venv. To name one: make PYTHON=/path/to/python3.12
PYTHON ?= python3 python3.13 python3.12 python3.11 python
BIN := .venv/bin
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

help: ## say what there is to make
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| grep '##' Makefile

demo: .venv/.installed ## install into .venv, then finetune the bundled model to 5 steps
	$(BIN)/mmd-ddm demo

# One thread a process, so that the test processes do not fight over the cores.
test: .venv/.installed-dev ## install into .venv, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

lint: .venv/.installed-dev ## what CI checks besides the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: .venv/.installed-dev ## build the pages into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean: ## remove .venv, caches and builds; results stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
	find src tests examples recipes benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: a second make installs nothing, unless pyproject.toml has changed since.

.venv/.created:
	@for python in $(PYTHON); do \
		"$$python" -c '$(SUITABLE)' 2>/dev/null || continue; \
		echo "creating .venv with $$("$$python" --version)"; \
		"$$python" -m venv .venv && touch $@; exit; \
	done; \
	echo "mmd-ddm needs Python 3.11 or newer with its venv module (tried: $(PYTHON));" \
		"install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1

.venv/.installed: pyproject.toml | .venv/.created
	@$(call install,.)
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/.created
	@$(call install,.[dev])
	@touch .venv/.installed $@

# pip tells one line a package; its errors pass untouched.
define install
	echo "installing into .venv: up to 6 GB with PyTorch for GPUs, a few minutes the first time"; \
	set -o pipefail; \
	$(BIN)/python -m pip install --disable-pip-version-check --editable '$(1)' \
		| { grep -oE --line-buffered \
			'(Downloading|Using cached) [^ ]+\.whl \([^)]+\)|Installing collected packages' \
			|| true; }
endef
