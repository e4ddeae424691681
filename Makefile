# Every target sets itself up: .venv is made again only when pyproject.toml changed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test test-all lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip setuptools wheel
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(RUN) tools/demo.py --work-dir work_dirs/demo

test: setup
	$(RUN) -m pytest -n 2 --dist worksteal -m 'not slow'

test-all: setup
	$(RUN) -m pytest -n 2 --dist worksteal

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) work_dirs
