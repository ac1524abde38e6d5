# Every target does its own set-up: a clone, Python 3.11 or newer and make are enough.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(p)),$(p))))
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# The torch to install. On a machine without a GPU:  make setup PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH  ?= torch==2.13.0
CODE   := rocktop_ray actors serve_apps train_loops tests benchmarks

.PHONY: setup demo test test-models check lint fmt type bench sox-resample sox-normalize clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "rocktop needs Python 3.11 or newer: install python3.11 and its venv module"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rocktop needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[demo,dev]"
	touch $@

setup: $(READY)  ## install everything into .venv and fetch the bundle's models
	$(BIN)/rocktop models fetch bundle

demo: setup  ## convert a sung recording into the bundle's voice: out/demo
	$(BIN)/rocktop demo assets/samples/vocadito_14.wav --out out/demo

test: setup test-models lint type check  ## set-up, lint, types and tests

test-models: $(READY)
	$(BIN)/rocktop models fetch crepe-tiny

check: $(READY)  ## the tests alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(READY)  ## ruff, black, codespell
	$(BIN)/ruff check $(CODE)
	$(BIN)/black --check --quiet $(CODE)
	$(BIN)/codespell $(CODE) docs README.md CHANGELOG.md CONTRIBUTING.md

type: $(READY)  ## mypy
	$(BIN)/mypy

fmt: $(READY)  ## format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/black $(CODE)

bench: $(READY)  ## speed and memory beside the peer package, in one run (needs a quiet machine)
	$(BIN)/python -m benchmarks.compare

sox-resample: $(READY)  ## IN=folder OUT=folder: to 48 kHz float32, linear phase
	$(BIN)/rocktop audio resample "$(IN)" "$(OUT)" --rate 48000

sox-normalize: $(READY)  ## IN=folder OUT=folder: peaks to -1 dBFS
	$(BIN)/rocktop audio normalize "$(IN)" "$(OUT)" --peak -1

clean:  ## remove what was built and converted; keeps .venv
	rm -rf build out .pytest_cache .mypy_cache .ruff_cache
