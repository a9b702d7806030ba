# Each target does its own set-up: a virtual environment in .venv, and this package in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test fast lint install clean

help:
	@echo 'make demo   train on synthetic tiles and map a scene; results in demo/'
	@echo 'make test   style, types and every test, the slow ones too'
	@echo 'make fast   the fast tests alone'
	@echo 'make clean  remove the environment and the results of the demo'

install: $(VENV)/.installed

# uv installs torch and its CUDA libraries in half a minute; pip takes several.
# UV_TORCH_BACKEND and index settings of the user's own are respected.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[tests]'
	touch $@

demo: install
	$(BIN)/torchgeo-ctm demo demo/

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fast: install
	$(BIN)/python -m pytest

test: lint
	$(BIN)/python -m pytest -m 'slow or not slow' --durations=10

clean:
	rm -rf $(VENV) demo
