# Everything a user runs. Each target sets up what it needs; `make` alone shows this list.
PYTHON ?= python3
# PyTorch's own index with CPU builds. A CUDA machine: make setup TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TEST_PROCESSES ?= 2
VENV := .venv
RUN := TRANSFORMERS_VERBOSITY=error $(VENV)/bin/python

.PHONY: help setup demo serve test browser fuzz check format openapi eval eval-quick chaos bench bench-gpu train clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / \t/' | expand -t 12

setup: $(VENV)/.ready ## virtual environment with pinned dependencies

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --upgrade pip
	$(VENV)/bin/pip install -q --retries 1 --extra-index-url $(TORCH_INDEX) -c constraints.txt torch
	$(VENV)/bin/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## one real edit of two instructions over HTTP; pictures in out/demo
	$(RUN) -m demo.showcase

serve: setup ## Redis, API and worker until Ctrl-C
	$(RUN) -m worker.supervisor

test: setup ## all tests, in TEST_PROCESSES processes
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile

browser: ## Chromium, for the tests of the page (Debian's package, as root)
	command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }

fuzz: setup ## thousands of odd requests against the API, made from its description, others each time (minutes)
	FUZZ_EXAMPLES=1000 $(RUN) -m pytest tests/service/test_fuzz.py

check: setup ## ruff and mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

openapi: setup ## openapi.yaml from the code
	$(VENV)/bin/python -m service.openapi > openapi.yaml.new
	mv openapi.yaml.new openapi.yaml

eval-quick: setup ## the method on a few scenes with ground truth, in a minute
	$(RUN) -m evaluation.scenes --quick

eval: setup ## the paper's claims and all variants on 300 scenes (hours; resumes), tables and plots
	$(RUN) -m evaluation.scenes

chaos: setup ## kills, freezes and cuts off processes with wrong clocks while 400 edits run; no edit may be lost
	$(RUN) -m benchmarks.chaos

bench: setup ## throughput, latency, memory and the engine's own cost (about half an hour)
	$(RUN) -m benchmarks.host
	$(RUN) -m benchmarks.load
	$(RUN) -m benchmarks.api
	$(RUN) -m benchmarks.streams

bench-gpu: setup ## against diffusers, eager and compiled, on a GPU (an hour; goes on from what it has)
	$(RUN) -m benchmarks.gpu

train: setup ## train the demo model from nothing (hours; resumes)
	$(RUN) -m demo.train

clean: ## remove what demo, serve and tests left
	rm -rf out/demo data
