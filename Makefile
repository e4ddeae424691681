# Every target sets itself up: .venv is made again only when pyproject.toml changed.
# `make setup EXTRAS="detection ray"` adds extras; nothing is ever installed outside .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
UPSTREAM := .venv-upstream
RUN_UPSTREAM := $(UPSTREAM)/bin/python

.PHONY: setup demo test test-all test-upstream lint clean

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

# Ray, 240 MB, is for long tests alone
test-all: setup $(VENV)/.extra-ray
	$(RUN) -m pytest -n 2 --dist worksteal

# upstream's packages share import names with the forks, so they have an environment of their own: 6 GB, most of it torch
$(UPSTREAM)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(UPSTREAM)
# mmengine 0.10 imports pkg_resources, which setuptools had until 81; mmseg imports ftfy and regex without listing them
	$(RUN_UPSTREAM) -m pip install --quiet --upgrade pip 'setuptools<81'
	$(RUN_UPSTREAM) -m pip install --quiet 'mmengine==0.10.*' 'mmcv-lite==2.1.*' 'mmdet==3.3.*' 'mmsegmentation==1.2.*' \
		ftfy regex pytest
	$(RUN_UPSTREAM) -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(RUN_UPSTREAM) -m search.environment --requirements > $(UPSTREAM)/requirements.txt
	$(RUN_UPSTREAM) -m pip install --quiet --no-warn-conflicts --requirement $(UPSTREAM)/requirements.txt
	$(RUN_UPSTREAM) -m search.environment
	touch $@

test-upstream: $(UPSTREAM)/.ready
	$(RUN_UPSTREAM) -m pytest -m upstream tests/tasks

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) $(UPSTREAM) work_dirs
