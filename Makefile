# Two commands do everything on a machine that has only Python and make:
#   make demo   sets up and runs the main job on drawn pictures, offline
#   make test   sets up and runs the tests
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SHARED ?= ../shared

.PHONY: demo test test-slow check torture fuzz setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "uv>=0.5,<1"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[all,dev]"
	@touch $(READY)

demo: $(READY)
	$(BIN)/relish demo

# The fast tests; `make test-slow` runs the others. One thread a worker: more of them get in each other's way.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

# Style, types, import directions, and the shape of the package.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python tools/structure.py --check --frames

# Kill -9 and resume, ten times (CI does it twice).
torture: $(READY)
	RELISH_TORTURE=10 $(BIN)/python -m pytest -m slow tests/training/test_kill_and_resume.py -s

# Hostile input for everything that relish reads: RELISH_FUZZ_SECONDS for each kind, 600 by default.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build src/*.egg-info
