# `make` alone prints what there is. Everything runs from one virtual environment, .venv, made from pyproject.toml.

PYTHON  ?= python3
PROFILE ?= quick
EXTRAS  ?= dev

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help env book lab test test-slow test-pages lint format clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "PROFILE=smoke|quick|cpu|colab|paper (now $(PROFILE)), HDM_DATA=path/to/coco, PYTHON=python3.12"

env: $(STAMP) ## create or update .venv from pyproject.toml

# The stamp is younger than pyproject.toml once everything is installed, so that a second call does nothing.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { echo \
	  "'$(PYTHON)' is not Python 3.10 or newer: install one, or name it, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo \
	  "'$(PYTHON)' cannot make virtual environments: install its venv module (Debian, Ubuntu: python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --no-compile --editable '.[$(EXTRAS)]'
	@touch $@

book: $(STAMP) ## run the notebooks, build the HTML, print the page to open
	$(BIN)/hdm book --profile $(PROFILE)

# In a container, where one is root: make lab LAB_OPTIONS="--allow-root --no-browser"
lab: $(STAMP) ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab $(LAB_OPTIONS) book

# Two processes with a thread each: more threads than cores would wait for one another.
test: $(STAMP) ## fast tests; at least 90 % of the package's lines must be covered
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov=hdm --cov-report=term-missing:skip-covered --cov-fail-under=90

test-slow: $(STAMP) ## the tests that take longer
	$(BIN)/python -m pytest -m slow --timeout=900

test-pages: $(STAMP) ## look at the built pages of PROFILE in a browser (Chromium), and keep pictures of them
	HDM_PROFILE=$(PROFILE) $(BIN)/python -m pytest -m browser tests/book

lint: $(STAMP) ## check style and types, notebooks included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## put code and notebooks into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove built pages and caches; run records and data stay
	rm -rf _build book/_build .pytest_cache .mypy_cache .ruff_cache .coverage
	find hdm tests book -name __pycache__ -prune -exec rm -rf {} +
	find book -name .ipynb_checkpoints -prune -exec rm -rf {} +
