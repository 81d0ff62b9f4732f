# make quickstart | make test | make test-all
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/test.stamp: requirements.txt requirements-test.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@ $(VENV)/run.stamp

.PHONY: quickstart test test-all lint clean
quickstart: $(VENV)/run.stamp
	$(BIN)/python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
	@echo "next: . $(BIN)/activate, then python launch.py --help"

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

# most of a first run is compilation: less of it here, all of it in test-all
test: lint
	XLA_FLAGS="--xla_backend_optimization_level=0 $(XLA_FLAGS)" $(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -q -n 2

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
