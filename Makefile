# Everything a newcomer needs, from a bare clone, on a machine that has Python, git and make.
#
#   make demo     install into .venv and train a tiny model on real images, on the CPU
#   make test     lint, types and tests, as CI runs them
#   make parity   the table of differences from the published implementation
#   make bench    benchmarks, each against a stated baseline
#
# The CPU build of torch is pinned; `make demo TORCH=torch` takes the build for your accelerator instead.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile

export TOKENIZERS_PARALLELISM := false

.PHONY: help install demo test lint types layers unit parity bench format clean

help:
	@sed -n 's/^#   //p' Makefile

# torch goes first: the package that pulls it in last decides which build is taken.
$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

install: $(BIN)/.installed

demo: install
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		stages/train.py --stage vlm

test: lint types layers unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

unit: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

parity: install
	$(BIN)/python -m tests.parity

bench: install
	$(BIN)/python -m benchmarks.decoder

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) outputs build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
