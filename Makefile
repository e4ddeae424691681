# Every target sets itself up: .venv is made again only when pyproject.toml changed.
# `make setup EXTRAS="detection ray"` adds extras; nothing is ever installed outside .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test test-all lint clean

setup: $(VENV)/.ready $(EXTRAS:%=$(VENV)/.extra-%)

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip setuptools wheel
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

# the check before refuses to put a fork over an upstream package, the one after finds two families side by side
$(VENV)/.extra-%: $(VENV)/.ready
	$(RUN) -m search.environment --adding $*
	$(RUN) -m pip install --quiet --editable '.[$*]'
	$(RUN) -m search.environment
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
