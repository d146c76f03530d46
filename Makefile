# Everything runs in .venv, which the first target that needs it builds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help quickstart notebooks docs test soak gpu-check slurm-check lint clean

help:  ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(READY)  ## the pooling sweep: 24 points in about 4 minutes, its table and figures
	$(BIN)/videopool -m experiment=quickstart hydra/launcher=joblib hydra.launcher.n_jobs=2 \
		features=disk features.dtype=null

notebooks: $(READY)  ## run the notebooks of analysis/, their figures and the studies they need, about 40 minutes
	$(BIN)/python analysis/execute.py --figures analysis/figures

docs: $(READY)  ## the documentation site, into build/site
	$(BIN)/sphinx-build -W -n --keep-going -q docs build/site

test: $(READY)  ## the test suite; three workers, because some tests wait
	$(BIN)/pytest -n 3 --dist worksteal

soak: $(READY)  ## twenty kills and more, about 20 minutes
	$(BIN)/pytest -m soak --timeout=3000

gpu-check: $(READY)  ## one GPU: rates, memory, precision, training of a 7B model, about 8 minutes; skipped without one
	$(BIN)/videopool experiment=gpu_check

slurm-check: $(READY)  ## a SLURM of one node, as root: brought up, used, taken down; a table of what happened
	$(BIN)/pytest -n 0 -m slurm --timeout=900 tests/slurm

lint: $(READY)  ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove what was built; results and data stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
