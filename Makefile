# make demo     install, generate a phantom, run the small sweep, say where the report is
# make test     install what tests need, then format, lint, types, layers, doc tests, tests
# make check    the same without slow, Ray and browser tests: two minutes
# make install  the environment of a user; make lock renews the pins

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check install lock static clean

demo: $(VENV)/.installed
	$(BIN)/orchestrator phantom runs/data/phantom --patients 16
	$(BIN)/orchestrator run sweeps/quickstart.yaml

# Two processes: tests/integration in one of them (tests/conftest.py).
test: $(VENV)/.installed-dev static
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

check: $(VENV)/.installed-dev static
	$(BIN)/python -m pytest -m "not slow and not ray and not browser and not gpu"

static: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.installed

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --disable-pip-version-check -q torch==2.13.0
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check -q --no-deps -e .
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/pip install --disable-pip-version-check -q -r requirements-dev.lock
	touch $@

# Resolve the newest versions that pyproject.toml allows into both lock files.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/pip install -q torch==2.13.0 && .lock/bin/pip install -q . && \
	    .lock/bin/pip freeze --exclude torch --exclude iac-orchestrator > requirements.lock
	.lock/bin/pip install -q ".[dev]" && \
	    .lock/bin/pip freeze --exclude torch --exclude iac-orchestrator \
	    | grep -vxFf requirements.lock > requirements-dev.lock
	rm -rf .lock

clean:
	rm -rf $(VENV) runs
