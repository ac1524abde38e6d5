# Every target does its own set-up: a clone, Python 3.11 or newer and make are enough.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(p)),$(p))))
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
TRAIN  := $(VENV)/.ready-train
# The torch to install. On a machine without a GPU:  make setup PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH  ?= torch==2.13.0
CODE   := rocktop_ray actors serve_apps train_loops tests benchmarks

.PHONY: setup demo serve train-setup preprocess train test test-models test-tools check lint fmt type bench bench-train bench-live sox-resample sox-normalize clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "rocktop needs Python 3.11 or newer: install python3.11 and its venv module"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rocktop needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[demo,serve]"
	touch $@

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[demo,dev]"
	touch $@

$(TRAIN): $(READY)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[demo,serve,train]"
	touch $@

setup: $(READY)  ## install everything into .venv and fetch the bundle's models
	$(BIN)/rocktop models fetch bundle

demo: setup  ## convert a sung recording into the bundle's voice: out/demo
	$(BIN)/rocktop demo assets/samples/vocadito_14.wav --out out/demo

serve: setup  ## the studio page and the HTTP API on this machine: ARGS="--port 8000 --config FILE"
	$(BIN)/rocktop-serve $(ARGS)

train-setup: setup $(TRAIN)  ## also install what training needs into .venv

preprocess: train-setup  ## IN=takes OUT=sets/anna: recordings to a dataset (ARGS="--encoder whisper-base --workers 2")
	$(BIN)/python -m train_loops.preprocess "$(IN)" --out "$(OUT)" $(ARGS)

train: train-setup  ## ARGS="name=anna dataset=sets/anna": a dataset to a voice
	$(BIN)/python -m train_loops.rvc $(ARGS)

test: setup test-models test-tools lint type check  ## set-up, lint, types and tests

test-models: $(READY)
	$(BIN)/rocktop models fetch crepe-tiny dnsmos dnsmos-p808

test-tools:  ## Debian's Chromium and Prometheus, which some tests drive
	@for tool in chromium promtool; do \
	  command -v $$tool >/dev/null && continue; \
	  package=$$(echo $$tool | sed s/promtool/prometheus/); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$package; } >/dev/null 2>&1; \
	  fi; \
	  command -v $$tool >/dev/null || echo "$$tool is not installed: tests that need it are skipped (Debian: apt-get install $$package)"; \
	done

check: $(DEV)  ## the tests alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(DEV)  ## ruff, black, codespell
	$(BIN)/ruff check $(CODE)
	$(BIN)/black --check --quiet $(CODE)
	$(BIN)/codespell $(CODE) docs README.md CHANGELOG.md CONTRIBUTING.md

type: $(DEV)  ## mypy
	$(BIN)/mypy

fmt: $(DEV)  ## format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/black $(CODE)

bench: $(DEV)  ## speed and memory of converting and of training beside the peer package (needs a quiet machine)
	$(BIN)/python -m benchmarks.compare
	$(MAKE) bench-train

bench-train: $(DEV)  ## a training step beside the peer trainer's; loading; preprocessing with 1 and 2 workers
	$(BIN)/python -m benchmarks.train.step
	$(BIN)/python -m benchmarks.train.loading
	$(BIN)/python -m benchmarks.train.preprocess

bench-live: $(DEV)  ## live: compute beside the peers' scheme, delay through the service, an hour of audio with kills
	$(BIN)/python -m benchmarks.live.compute
	$(BIN)/python -m benchmarks.live.delay --minutes 10
	$(BIN)/python -m benchmarks.live.soak

sox-resample: $(READY)  ## IN=folder OUT=folder: to 48 kHz float32, linear phase
	$(BIN)/rocktop audio resample "$(IN)" "$(OUT)" --rate 48000

sox-normalize: $(READY)  ## IN=folder OUT=folder: peaks to -1 dBFS
	$(BIN)/rocktop audio normalize "$(IN)" "$(OUT)" --peak -1

clean:  ## remove what was built and converted; keeps .venv
	rm -rf build out .pytest_cache .mypy_cache .ruff_cache
