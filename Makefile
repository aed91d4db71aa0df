# Everything a newcomer needs, from a bare clone, on a machine that has Python, git and make.
#
#   make demo     install into .venv and train a tiny model on real images, on the CPU
#   make stages   train every stage on real images, each from what the one before has left
#   make evaluate ask the models of make stages about held-out rows, and put the figures on their cards
#   make test     lint, types and tests, as CI runs them; TRANSFORMERS=5.24.0 takes that version, in its own .venv
#   make test-all the same, and the slow tests: kills, two processes, the wheel, a browser, journeys
#   make parity   the table of differences from the published implementation
#   make bench    benchmarks, each against a stated baseline
#   make hf-common  the common tests of the installed transformers, fetched from the package index
#   make learn    train on real and generated images, and fail if a figure is below its target (about an hour)
#
# The CPU build of torch is pinned. `make demo TORCH=torch` takes the build for your accelerator instead.
# pyproject.toml gives the range of transformers versions. `make test TRANSFORMERS=VERSION` tests one of them.

PYTHON ?= python3
TORCH ?= torch==2.13.0
TRANSFORMERS ?=
VENV ?= .venv$(if $(TRANSFORMERS),-transformers-$(TRANSFORMERS))
BIN := $(VENV)/bin
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder

export TOKENIZERS_PARALLELISM := false

.PHONY: help install demo stages evaluate test lint types layers unit parity bench hf-common learn format clean

help:
	@sed -n 's/^#   //p' Makefile

# torch goes first: the package that pulls it in last decides which build is taken.
$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]" $(if $(TRANSFORMERS),"transformers==$(TRANSFORMERS)")
	@touch $@

install: $(BIN)/.installed

TRAIN := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	stages/train.py

demo: install
	$(TRAIN) --stage vlm

stages: install
	$(TRAIN) --stage align-sam
	$(TRAIN) --stage align-isam
	$(TRAIN) --stage vg --segmenter outputs/align-sam --instance_segmenter outputs/align-isam
	$(TRAIN) --stage vlm --model_name_or_path outputs/vg \
		--muon false --per_device_train_batch_size 8 --max_image_tokens 36 \
		--max_steps 600 --eval_steps 600 --save_steps 600
	$(TRAIN) --stage grg --model_name_or_path outputs/vlm

EVALUATE := $(BIN)/vividmed evaluate

evaluate: install
	$(EVALUATE) predict outputs/vg --task ground --output predictions/vg
	$(EVALUATE) score predictions/vg --plots --card outputs/vg
	$(EVALUATE) predict outputs/vlm --task vqa --batch_size 16 --output predictions/vlm
	$(EVALUATE) score predictions/vlm --plots --card outputs/vlm
	$(EVALUATE) predict outputs/grg --task grounded-report --output predictions/grg
	$(EVALUATE) score predictions/grg --plots --card outputs/grg

test: lint types layers unit

test-all: test slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

unit: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

parity: install
	$(BIN)/python -m tests.parity

bench: install
	$(BIN)/python -m benchmarks.decoder
	$(BIN)/python -m benchmarks.segmenter
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.start

hf-common: install
	$(BIN)/python -m benchmarks.hf_common

learn: install
	$(BIN)/python -m benchmarks.learning.align_sam
	$(BIN)/python -m benchmarks.learning.align_isam
	$(BIN)/python -m benchmarks.learning.phantoms

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-transformers-* outputs predictions build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
