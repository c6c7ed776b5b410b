# `make demo` shows what this is, `make test` proves it. Both work from a bare clone. While you change something,
# `make quick`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo quick test catalogue coverage style lint torture clean

demo: $(STAMP)
	$(BIN)/monkeyproof run

# Two files at a time are as much as two cores bear: with anything else beside them, answers are late that nothing
# delayed. tests/conftest.py says which tests start a target (live), measure time (alone) or take seconds (lengthy).
TWO_AT_A_TIME := --numprocesses 2 --dist loadscope --no-loadscope-reorder
COUNTING := not slow and not alone and not live

# For every save, under two minutes: neither types, nor a target, a registry or a browser.
quick: $(STAMP) style
	$(BIN)/pytest -m "$(COUNTING) and not lengthy" $(TWO_AT_A_TIME)

# Plain `pytest` runs the same tests one after another, which takes about ten minutes longer.
test: $(STAMP) lint
	$(BIN)/pytest -m "$(COUNTING)" $(TWO_AT_A_TIME)
	$(BIN)/pytest -m "live and not alone and not slow and not catalogue" $(TWO_AT_A_TIME)
	$(BIN)/pytest -m "alone and not slow"

# A trial of every experiment in the catalogue on embedded targets; `make test` runs a sample of them.
catalogue: $(STAMP)
	$(BIN)/pytest -m catalogue $(TWO_AT_A_TIME) tests/end_to_end/test_catalogue_trials.py

# Branch coverage of the tests that count, within the processes of pytest. A process that a test starts (a proxy, a
# prober, a target) does not show, since a tracer would slow down what tests time: the true share is higher. Without
# the fuzz tests, which bound processor time.
COVERED_AT_LEAST := 70
coverage: $(STAMP)
	rm -rf .coverage && mkdir .coverage
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/pytest -m "$(COUNTING)" $(TWO_AT_A_TIME) --ignore tests/config/test_fuzz.py
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet --directory .coverage/html
	$(BIN)/coverage report --fail-under $(COVERED_AT_LEAST)

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

lint: style
	$(BIN)/mypy
	MYPYPATH=src:tests/support:tests/torture $(BIN)/mypy benchmarks/*.py tests/torture/torture.py

# Kills the harness in the middle of 100 trials for each family of faults, about two hours; see tests/torture.
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
	rm -rf $(VENV) .coverage build dist runs src/*.egg-info
