# make quickstart | make test | make test-all | make wheel | make docs | make requirements
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# requirements.txt has the hash of every file, so what has none is installed in a second step
$(VENV)/pinned.stamp: requirements.txt | $(BIN)/python
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/run.stamp: $(VENV)/pinned.stamp pyproject.toml setup.py
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/pinned.stamp requirements-test.txt
	$(PIP) -r requirements-test.txt
	@touch $@

.PHONY: quickstart test test-all lint wheel docs requirements clean
quickstart: $(VENV)/run.stamp
	$(BIN)/mia-jax --config=quickstart --workdir=runs/quickstart
	@echo "next: . $(BIN)/activate, then mia-jax --help"

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

# Files stay on one worker, because their tests share fixtures and compiled programs. Rewriting
# assertions for the few that fail takes 8 seconds of each worker; a failure shows its locals instead,
# and `pytest FILE` rewrites.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --assert=plain --showlocals

# most of a first run is compilation: less of it here, all of it in test-all
test: lint
	XLA_FLAGS="--xla_backend_optimization_level=0 $(XLA_FLAGS)" $(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

wheel: $(VENV)/test.stamp
	$(BIN)/python -m build --wheel

# the site, in build/site
docs: $(VENV)/run.stamp
	$(PIP) --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# needs uv; keeps the versions that the file has, --upgrade takes the newest
requirements:
	uv pip compile pyproject.toml --extra tfds --extra tensorboard --universal --generate-hashes \
	  --no-annotate -c requirements-test.txt -c requirements-bench.txt -c requirements-tf.txt \
	  -o requirements.txt

clean:
	rm -rf $(VENV) build dist .cache .pytest_cache .ruff_cache .mypy_cache
