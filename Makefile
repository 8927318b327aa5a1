# The menu. Every target makes .venv itself when it is missing; PYTHON can be overridden: make demo PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
# One thread: small tensors are many times slower with two. Tests run side by side instead, a file in one process.
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: demo test test-slow soak check fix bench docs wheel clean-demo

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=23"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[wandb,webdataset,serve,dev]"
	touch $@

demo: .venv/installed  ## sample, build, train, evaluate, predict on the embedded model
	$(BIN)/appraiser demo --out runs/demo

clean-demo:  ## remove the demo's run, so that it can run again
	rm -rf runs/demo runs/demo-data

test: .venv/installed  ## all tests but the slow ones and the long sweeps
	$(TEST_ENV) $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not slow and not gpu and not soak"

test-slow: .venv/installed  ## full widths (2 GB of memory) and long runs
	$(TEST_ENV) $(BIN)/python -m pytest -q --timeout=1200 -m "slow and not gpu"

soak: .venv/installed  ## the long fault sweeps: bad servers, damaged pictures, kills; prints what it counted
	$(TEST_ENV) $(BIN)/python -m pytest -q -s --timeout=3600 -m "soak and not gpu"

check: .venv/installed  ## style, types, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

fix: .venv/installed  ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed  ## write docs/cli.md and docs/config.md from the code
	$(BIN)/python docs/generate.py

bench: .venv/installed  ## training step and data, against the common recipe and script
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/training_step.py --config tiny --tasks train
	$(BIN)/python benchmarks/data.py

wheel: .venv/installed  ## build the wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps -w dist .
