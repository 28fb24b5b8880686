# Two commands do everything on a machine that has only Python and make:
#   make demo   sets up and runs the main job on drawn pictures, offline
#   make test   sets up and runs the tests
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
SITE ?= site
SHARED ?= ../shared

.PHONY: demo test test-slow check site torture fuzz dist sbom audit setup setup-docs clean

setup: $(READY)

setup-docs: $(DOCS_READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "uv>=0.5,<1"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[all,dev]"
	@touch $(READY)

$(DOCS_READY): $(READY)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[docs]"
	@touch $(DOCS_READY)

demo: $(READY)
	$(BIN)/relish demo

# The fast tests; `make test-slow` runs the others, and `make test WHICH="slow or not slow"` all in one go, as CI does.
# One thread a worker: more of them get in each other's way. By stealing, a worker keeps to its own modules while it can.
WHICH ?= not slow
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test: $(READY)
	$(PYTEST) --durations=25 -m "$(WHICH)"

test-slow: $(READY)
	$(PYTEST) --durations=25 -m slow

# Style, types, import directions, the Dockerfile, and the shape of the package.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	OMP_NUM_THREADS=1 $(BIN)/python tools/structure.py --check --frames

# The documentation site, in both languages; without a network, once its tools are installed. A warning ends it.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

site: $(DOCS_READY)
	$(MKDOCS) --config-file mkdocs.yml --site-dir "$(abspath $(SITE))"
	$(MKDOCS) --config-file mkdocs.id.yml --site-dir "$(abspath $(SITE))/id"
	@echo "$(SITE)/index.html; with search:  $(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE)"

# What CI does a part of: kill -9 and resume ten times, and the server of teach twenty times, each call of the system
# failing, every network and framing.
torture: $(READY)
	RELISH_TORTURE=10 $(BIN)/python -m pytest -m slow tests/training/test_kill_and_resume.py -s
	RELISH_TORTURE=20 $(BIN)/python -m pytest -m slow tests/teaching/test_killed.py -s
	RELISH_TORTURE=1 $(PYTEST) -m slow tests/cli/test_faults.py tests/exporting/test_build.py \
		tests/evaluation/test_calibration.py tests/models/test_source.py tests/models/test_target.py \
		tests/tasks/test_predict_table.py tests/training/test_auto.py tests/training/test_train_processes.py \
		tests/test_docs.py

# Hostile input for everything that relish reads: RELISH_FUZZ_SECONDS for each kind, 600 by default.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

# The source distribution, and from it the wheel; with onnxruntime-web where npm has put it (tools/web_runtime.py).
dist: $(READY)
	rm -f dist/relish_vision-*
	if [ -d tests/javascript/node_modules/onnxruntime-web ]; then $(BIN)/python tools/web_runtime.py; fi
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/python tools/release.py dist

# What a release with all extras comes to: CycloneDX, with the texts of the licences. The tools are for these two alone.
CYCLONEDX := $(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py
PIP_AUDIT := $(BIN)/uv tool run --quiet --from pip-audit==2.10.1 pip-audit

sbom: dist
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/released
	$(BIN)/uv pip install --quiet --python build/released/bin/python --constraint constraints.txt "$$(ls dist/*.whl)[all]"
	$(CYCLONEDX) environment --pyproject pyproject.toml --gather-license-texts --output-reproducible \
		--output-file dist/relish-vision.cdx.json build/released
	$(BIN)/python tools/licences.py dist/relish-vision.cdx.json

# Asks a database of advisories, so it needs a network, and is no part of CI; what cannot be audited fails it.
audit:
	$(PIP_AUDIT) --strict --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist $(SITE) src/*.egg-info
