# Two commands: `make demo` shows what this is, `make test` runs every test. Both work from a bare clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint torture clean

demo: $(STAMP)
	$(BIN)/monkeyproof run

# Plain `pytest` runs the same tests one after another, which takes about ten minutes longer. Two targets at a time
# are as much as two cores bear: with anything else beside them, answers are late that nobody delayed.
TWO_AT_A_TIME := --numprocesses 2 --dist loadscope --no-loadscope-reorder
test: $(STAMP) lint
	$(BIN)/pytest -m "not slow and not alone and not live" $(TWO_AT_A_TIME)
	$(BIN)/pytest -m "not slow and not alone and live" $(TWO_AT_A_TIME)
	$(BIN)/pytest -m "not slow and alone"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=src:tests/support:tests/torture $(BIN)/mypy benchmarks/*.py tests/torture/torture.py
	$(BIN)/lint-imports

# Kills the harness in the middle of 100 trials for each family of faults, about two hours; see tests/torture.py.
torture: $(STAMP)
	$(BIN)/monkeyproof target up
	$(BIN)/python tests/torture/torture.py --kills-per-family 100

# The environment, exactly as locked. Byte-compiled: sklearn and mlflow import twice as slowly without.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say which: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  VIRTUAL_ENV=$(VENV) UV_COMPILE_BYTECODE=1 uv pip sync --quiet --require-hashes requirements.lock && \
	  VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --no-build-isolation --editable . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  PYTHONDONTWRITEBYTECODE= $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . ; \
	fi
	touch $@

clean:
	rm -rf $(VENV) build dist runs src/*.egg-info
